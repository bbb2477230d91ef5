"""Built models on disk: made once for a machine, whole or not there at all.

A model is a directory named by everything that decides its bytes, with a manifest of hashes.  It is built in a
temporary directory beside its place and renamed into it, under a file lock: a second process waits for the first
instead of building twice, and a killed one leaves nothing that looks finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MANIFEST = "manifest.json"

Build = Callable[[Path], None]
"""Writes a model's files into the directory given."""


def default_cache_dir() -> Path:
    """``$SOMA_CACHE``, else ``$XDG_CACHE_HOME/soma``, else ``~/.cache/soma``."""
    if named := os.environ.get("SOMA_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soma"


def cached_model(cache_dir: Path, name: str, build: Build) -> Path:
    """Return the directory of the model ``name``, building it first unless a whole one is there.

    Blocks while another process builds it.  Raises OSError when the cache directory cannot be written.
    """
    place = cache_dir / "models" / name
    if _is_whole(place):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_name(f"{name}.lock")):
        if _is_whole(place):
            return place
        # What is there now is damaged, and what is half-built was left by a process that died: we hold the lock.
        shutil.rmtree(place, ignore_errors=True)
        for leftover in place.parent.glob(f"{name}.building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=f"{name}.building-", dir=place.parent))
        try:
            build(building)
            _seal(building)
            building.rename(place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return place


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The lock file stays: removing it would let a third process lock a new one beside a holder of the old.
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(directory: Path) -> None:
    """Write the manifest last, everything flushed: after a power cut a model is whole or has none."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    for path in files:
        _flush(path)
    manifest = directory / _MANIFEST
    manifest.write_text(json.dumps({path.name: _hash(path) for path in files}, indent=1), encoding="utf-8")
    _flush(manifest)
    _flush(directory)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(directory: Path) -> bool:
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(_hash(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False

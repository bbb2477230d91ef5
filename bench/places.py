"""Where a measurement keeps its data: a directory of its own, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A temporary directory that the stores' own users may enter."""
    path = Path(tempfile.mkdtemp(prefix="soma-bench-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)

"""The data directory: its layout, its lock and its secrets.

postgres/  redis/  milvus/  brain/   what the stores and the brain's outbox keep
secrets/                             passwords and keys, readable by the owner only
logs/                                one file a process
run/                                 lock, process records, generated settings; may be deleted when nothing runs
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from soma_embedded.errors import DirectoryInUseError, DirectoryUnusableError

PLACES = ("postgres", "redis", "milvus", "brain", "secrets", "logs", "run")


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step, readable by its owner only; a crash leaves the old or the new text."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class DataDirectory:
    """Paths under one data directory; `hold` takes it for one supervisor."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def place(self, name: str) -> Path:
        """One of PLACES."""
        if name not in PLACES:
            raise ValueError(f"{name!r} is no place in a data directory")
        return self.root / name

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.place("logs") / f"{name}.log"

    def record(self, name: str) -> Path:
        """The process record of a process."""
        return self.place("run") / f"{name}.json"

    def secret(self, name: str) -> str:
        """A random secret that stays the same for this directory: 32 URL-safe characters, made when first asked for."""
        path = self.place("secrets") / name
        with contextlib.suppress(FileNotFoundError):
            if text := path.read_text().strip():
                return text
        text = secrets.token_urlsafe(24)
        write_private(path, text)
        return text

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Makes the layout and keeps every other supervisor out until left or killed.

        Raises DirectoryInUseError naming the holder's pid, or DirectoryUnusableError.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in PLACES:
                self.place(name).mkdir(exist_ok=True, mode=0o700)
            lock = (self.place("run") / "lock").open("a+")
        except OSError as error:
            raise DirectoryUnusableError(self.root, f"{error.strerror}: {error.filename}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                text = lock.read().strip()
                raise DirectoryInUseError(self.root, int(text) if text.isdigit() else None) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

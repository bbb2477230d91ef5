"""A lock file, so that one data directory serves one brain."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from brain_server.stores.sqlite.errors import BrainFileError


class FileLock:
    """Held from construction until `release`; the kernel releases it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise BrainFileError(f"{path} is held by another brain (process {holder or 'unknown'})") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the lock back; the file stays, removing it would let two brains lock two files of one name."""
        os.close(self._fd)

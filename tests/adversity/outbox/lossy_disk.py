"""A file system in memory that forgets, when the power is cut, what was never fsynced.

    python lossy_disk.py MOUNTPOINT

Commands on standard input, answered by a line on standard output:
    cut SEED SHARE   refuse everything from now on; of what is not fsynced keep each 512-byte sector with chance SHARE
    on               work again, from what the cut left
    bye              leave
"""

from __future__ import annotations

import errno
import os
import random
import stat
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import mfusepy as fuse

SECTOR = 512


class File:
    """What a reader sees, what would survive, and the operations that lie between."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.seen = bytearray()
        self.safe = bytearray()
        self.unsynced: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, content: bytes) -> None:
        put(self.seen, offset, content)
        self.unsynced.append((offset, content))

    def truncate(self, length: int) -> None:
        resize(self.seen, length)
        self.unsynced.append((length, None))

    def sync(self) -> None:
        self.safe = bytearray(self.seen)
        self.unsynced.clear()

    def lose_power(self, rng: random.Random, share: float) -> None:
        for offset, content in self.unsynced:
            if content is None:
                if rng.random() < share:
                    resize(self.safe, offset)
                continue
            for start in range(0, len(content), SECTOR):
                if rng.random() < share:
                    put(self.safe, offset + start, content[start : start + SECTOR])
        self.seen = bytearray(self.safe)
        self.unsynced.clear()


def put(content: bytearray, offset: int, piece: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(piece)] = piece


def resize(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


def powered(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let the operation fail while the power is off."""

    @wraps(method)
    def operation(disk: LossyDisk, *arguments: Any) -> Any:
        with disk.switch:
            if disk.off:
                raise fuse.FuseOSError(errno.EIO)
            return method(disk, *arguments)

    return operation


class LossyDisk(fuse.Operations):  # type: ignore[misc, name-defined, unused-ignore]
    """Names are safe at once; contents only after an fsync."""

    use_ns = True

    def __init__(self) -> None:
        self.switch = threading.Lock()
        self.off = False
        self.files: dict[str, File] = {}
        self.directories: dict[str, int] = {"/": 0o755}

    def cut(self, seed: int, share: float) -> None:
        with self.switch:
            self.off = True
            rng = random.Random(seed)
            for path in sorted(self.files):
                self.files[path].lose_power(rng, share)

    def on(self) -> None:
        with self.switch:
            self.off = False

    def _file(self, path: str) -> File:
        try:
            return self.files[path]
        except KeyError:
            raise fuse.FuseOSError(errno.ENOENT) from None

    @powered
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        now = time.time_ns()
        times = {"st_atime": now, "st_mtime": now, "st_ctime": now, "st_uid": os.getuid(), "st_gid": os.getgid()}
        if path in self.directories:
            return {"st_mode": stat.S_IFDIR | self.directories[path], "st_nlink": 2, **times}
        file = self._file(path)
        return {"st_mode": stat.S_IFREG | file.mode, "st_nlink": 1, "st_size": len(file.seen), **times}

    @powered
    def readdir(self, path: str, fh: int) -> list[str]:
        prefix = path.rstrip("/") + "/"
        inside = {name[len(prefix) :] for name in (*self.files, *self.directories) if name.startswith(prefix)}
        return [".", "..", *(name for name in inside if name and "/" not in name)]

    @powered
    def mkdir(self, path: str, mode: int) -> int:
        self.directories[path] = mode & 0o777
        return 0

    @powered
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self.files[path] = File(mode & 0o777)
        return 0

    @powered
    def open(self, path: str, flags: int) -> int:
        self._file(path)
        return 0

    @powered
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._file(path).seen[offset : offset + size])

    @powered
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._file(path).write(offset, data)
        return len(data)

    @powered
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._file(path).truncate(length)
        return 0

    @powered
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._file(path).sync()
        return 0

    @powered
    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    @powered
    def unlink(self, path: str) -> int:
        self._file(path)
        del self.files[path]
        return 0

    @powered
    def rename(self, old: str, new: str) -> int:
        self.files[new] = self._file(old)
        del self.files[old]
        return 0

    @powered
    def chmod(self, path: str, mode: int) -> int:
        if path in self.directories:
            self.directories[path] = mode & 0o777
        else:
            self._file(path).mode = mode & 0o777
        return 0

    @powered
    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    @powered
    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 24, "f_bfree": 1 << 24, "f_bavail": 1 << 24}


def obey(disk: LossyDisk, mountpoint: str) -> None:
    """Carry out commands until there are no more."""
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "cut":
            disk.cut(int(arguments[0]), float(arguments[1]))
        elif command == "on":
            disk.on()
        elif command == "bye":
            break
        print(command, flush=True)
    disk.on()
    os.system(f"fusermount3 -u -z {mountpoint}")


if __name__ == "__main__":
    lossy = LossyDisk()
    threading.Thread(target=obey, args=(lossy, sys.argv[1]), daemon=True).start()
    fuse.FUSE(lossy, sys.argv[1], foreground=True, nothreads=True, attr_timeout=0, entry_timeout=0)

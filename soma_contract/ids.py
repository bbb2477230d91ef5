"""Memory ids: UUIDv7 for memories without a key, UUIDv8 derived from (namespace, key) otherwise."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid

_VERSION_8 = 0x8 << 76
_VERSION_7 = 0x7 << 76
_VARIANT = 0x2 << 62
_VERSION_MASK = ~(0xF << 76)
_VARIANT_MASK = ~(0x3 << 62)


class _Random(threading.local):
    """The system's random bytes, a few thousand at a time: each system call hands the interpreter to other threads."""

    drawn = b""
    at = 0

    def forget(self) -> None:
        """Draw anew: a forked child would go on with what its parent draws."""
        self.drawn, self.at = b"", 0

    def ten(self) -> bytes:
        """Return ten bytes that were never returned before."""
        at = self.at
        if at >= len(self.drawn):
            self.drawn, at = os.urandom(4_000), 0
        self.at = at + 10
        return self.drawn[at : at + 10]


_random = _Random()
os.register_at_fork(after_in_child=_random.forget)


def new_memory_id(now_ms: int | None = None) -> str:
    """Return a new UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits."""
    milliseconds = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(_random.ten(), "big")
    # What str(UUID(int=...)) says, in a third of the time: every observation and write gets an id.
    digits = f"{_stamp(value, _VERSION_7):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def keyed_memory_id(namespace: str, key: str) -> str:
    """Return the UUIDv8 of a key: the same on every server, so ids proposed offline never collide."""
    digest = hashlib.blake2b(
        f"{len(namespace)}:{namespace}:{key}".encode(), digest_size=16, person=b"soma-key-id"
    ).digest()
    return str(uuid.UUID(int=_stamp(int.from_bytes(digest, "big"), _VERSION_8)))


def foreign_memory_id(*names: str) -> str:
    """Return the UUIDv8 of a thing of another program, named by some texts: the same whenever it is brought again."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=16, person=b"soma-foreign-id").digest()
    return str(uuid.UUID(int=_stamp(int.from_bytes(digest, "big"), _VERSION_8)))


def parse_memory_id(text: str) -> str:
    """Return the canonical form of a UUID; raises ValueError for anything else."""
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        raise ValueError("a memory id is a UUID such as 0190b6a0-7c1e-7000-8000-000000000000") from None
    if len(text) != 36 or canonical != text.lower():
        raise ValueError("a memory id is a UUID in its 36-character form")
    return canonical


def _stamp(value: int, version: int) -> int:
    return (value & _VERSION_MASK & _VARIANT_MASK) | version | _VARIANT

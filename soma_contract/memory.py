"""The memory and the commands that change it, as both servers and the client see them.

All values are frozen.  Times are timezone-aware UTC datetimes with microseconds; vectors are
little-endian float32 bytes behind :class:`Vector`, so that a memory stays hashable and comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_NAMESPACE = "default"

Coordinate = tuple[float, float, float]


class Kind(StrEnum):
    """What sort of memory it is; decides the half-life that a recency option uses."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    PROCEDURAL = "procedural"


class View(StrEnum):
    """How much of a memory an answer carries; only FULL carries the embedding."""

    BASIC = "basic"
    FULL = "full"


class Durability(StrEnum):
    """Where an acknowledged write is durable."""

    STORED = "stored"
    QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class Vector:
    """A float32 vector as little-endian bytes."""

    packed: bytes

    @classmethod
    def of(cls, values: NDArray[np.float32] | list[float]) -> Vector:
        """Pack a one-dimensional array or list of floats."""
        return cls(np.asarray(values, dtype="<f4").tobytes())

    @property
    def dimension(self) -> int:
        """Number of components."""
        return len(self.packed) // 4

    @property
    def array(self) -> NDArray[np.float32]:
        """The components, shape (dimension,), read-only."""
        return np.frombuffer(self.packed, dtype="<f4")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who stated a memory, where it came from, and how sure they were (0 to 1)."""

    author: str = ""
    source: str = ""
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory.

    In a command the fields from ``created_at`` to ``version`` are ignored: the server sets them.
    Empty strings mean "not given"; ``None`` means "not given" where zero is a value.
    """

    memory_id: str = ""
    namespace: str = DEFAULT_NAMESPACE
    key: str = ""
    coordinate: Coordinate | None = None
    kind: Kind = Kind.EPISODIC
    schema_type: str = ""
    schema_version: str = ""
    persona_id: str = ""
    text: str = ""
    payload_json: str = ""
    tags: tuple[str, ...] = ()
    actor: str = ""
    session_id: str = ""
    sequence: int | None = None
    provenance: Provenance = Provenance()
    importance: float | None = None
    relevance: float | None = None
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    embedding: Vector | None = None
    embedding_model: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """Names one memory by exactly one of id, key or coordinate; the namespace scopes the last two."""

    memory_id: str = ""
    namespace: str = DEFAULT_NAMESPACE
    key: str = ""
    coordinate: Coordinate | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Which brain accepted a write and when; a write older than the row's last origin is dropped."""

    brain_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Remember:
    """Store a memory, replacing one of the same id or key.

    ``ttl_s`` counts from the commit by the database clock and excludes ``memory.expires_at``.
    """

    memory: Memory
    ttl_s: float | None = None
    if_match: int | None = None
    if_absent: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the masked fields of an existing memory; ``mask`` holds field names of Memory."""

    target: Target
    memory: Memory
    mask: tuple[str, ...]
    ttl_s: float | None = None
    if_match: int | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete a memory with its links; ``allow_missing`` makes an absent one a success."""

    target: Target
    if_match: int | None = None
    allow_missing: bool = False
    request_id: str = ""


Command = Remember | Update | Forget


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed command did.

    ``memory`` is None after a Forget.  ``changed`` is False when the same content was there already.
    """

    memory: Memory | None
    revision: int
    created: bool = False
    changed: bool = True
    warnings: tuple[str, ...] = ()

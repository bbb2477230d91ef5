"""What a watcher is told: the changes of a tenant, revision by revision.

All values are frozen.  Times are timezone-aware UTC datetimes with microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from soma_contract.links import Link, LinkKey
from soma_contract.memory import Memory


class EndCause(StrEnum):
    """Why a memory or link ended."""

    FORGOTTEN = "forgotten"
    EXPIRED = "expired"
    RETENTION = "retention"
    ERASED = "erased"
    CASCADE = "cascade"


@dataclass(frozen=True, slots=True)
class MemoryStored:
    """A memory as of the revision; ``redacted`` where its content is gone by now, so that only its identity is told."""

    memory: Memory
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class MemoryEnded:
    """A memory that is gone; ``version`` was its last."""

    memory_id: str
    namespace: str
    version: int
    key: str = ""
    cause: EndCause = EndCause.FORGOTTEN


@dataclass(frozen=True, slots=True)
class LinkStored:
    """A link that was made or changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkEnded:
    """A link that is gone."""

    key: LinkKey
    cause: EndCause = EndCause.FORGOTTEN


Change = MemoryStored | MemoryEnded | LinkStored | LinkEnded


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes of one revision in the order they were made; ``complete`` unless more of the same revision follow."""

    revision: int
    committed_at: datetime
    changes: tuple[Change, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything up to the revision was told, or is left out; ``at`` is the server's clock."""

    revision: int
    at: datetime

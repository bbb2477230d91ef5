"""Records, which imports take and exports give, and the jobs that imports are.

All values are frozen.  Times are timezone-aware UTC datetimes with microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from soma_contract.errors import SomaError
from soma_contract.links import Link
from soma_contract.memory import Memory

Record = Memory | Link
"""A memory with id, times, version and embedding as far as they are to be kept, or a link."""

JOB_KEPT = timedelta(days=30)
"""So long after it last moved a job is forgotten, with its refusals."""


class Conflict(StrEnum):
    """What an import does with a record whose memory (or link) exists."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    FAIL = "fail"


class ImportState(StrEnum):
    """State of an import job; only an active one takes records."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How an import is to go; ``max_refused`` None is no bound."""

    on_conflict: Conflict = Conflict.SKIP
    max_refused: int | None = None
    dry_run: bool = False
    label: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class ImportJob:
    """An import job: how it is to go, and how far it is.

    ``committed_offset`` records are dealt with for good: stored, skipped or refused.  ``indexed`` counts stored
    memories that the index holds by now, ``total`` is what finish said.
    """

    import_id: str
    options: ImportOptions
    state: ImportState = ImportState.ACTIVE
    committed_offset: int = 0
    stored: int = 0
    skipped: int = 0
    refused: int = 0
    indexed: int = 0
    total: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When it is forgotten."""
        return None if self.updated_at is None else self.updated_at + JOB_KEPT


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that was refused: its place in the whole import, and why."""

    offset: int
    error: SomaError

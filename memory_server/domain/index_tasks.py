"""Work on whole collections of the index: what it is, how far it is, and what a comparison found.

The contract calls it an index job; here a job is what brings a single memory into the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import pairwise


class TaskKind(StrEnum):
    """What a task does."""

    REBUILD = "rebuild"
    RE_EMBED = "re_embed"
    RECONCILE = "reconcile"


class TaskState(StrEnum):
    """Where a task is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a task is about: a tenant or all (empty), one collection or all, the profile it moves to."""

    kind: TaskKind
    tenant_name: str = ""
    collection: str = ""
    profile: str = ""
    dimension: int = 0
    repair: bool = False
    poisoned_only: bool = False


@dataclass(frozen=True, slots=True)
class Differences:
    """What a comparison of the index with the truth has found so far; all are counts of memories."""

    compared: int = 0
    missing: int = 0
    outdated: int = 0
    orphaned: int = 0
    repaired: int = 0

    def __add__(self, other: Differences) -> Differences:
        return Differences(
            self.compared + other.compared,
            self.missing + other.missing,
            self.outdated + other.outdated,
            self.orphaned + other.orphaned,
            self.repaired + other.repaired,
        )

    @property
    def found(self) -> int:
        """How many memories differ."""
        return self.missing + self.outdated + self.orphaned


@dataclass(frozen=True, slots=True)
class IndexTask:
    """A task as it is kept; ``progress`` is what its worker needs to go on after a crash."""

    task_id: str
    scope: Scope
    state: TaskState
    created_at: datetime
    ended_at: datetime | None = None
    done: int = 0
    total: int = 0
    differences: Differences = field(default_factory=Differences)
    progress: Mapping[str, object] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    lease: str = ""

    def at(self, **progress: object) -> IndexTask:
        """Return the task with progress noted under these names."""
        return replace(self, progress={**self.progress, **progress})


@dataclass(frozen=True, slots=True)
class PoisonedRow:
    """A memory that the index or the embedder refuses."""

    tenant_name: str
    memory_id: str
    version: int
    attempts: int
    reason: str
    retry_at: datetime | None
    queued_at: datetime


# --- comparing -----------------------------------------------------------------------------------

Key = tuple[str, str]
"""(tenant name, memory id)."""

LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def order(key: Key) -> str:
    """Where the index has a row; its order is that of ``tenant|id`` by code points, not that of pairs."""
    return f"{key[0]}|{key[1]}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Memories of one tenant with ids in (above, upto], as one comparison of digests; "" is below every id."""

    tenant_name: str
    above: str
    upto: str


@dataclass(frozen=True, slots=True)
class TruthRow:
    """What the truth says of a memory and of its being indexed.

    ``version`` is None when it does not live.  ``settled`` says that the index should hold this version in this
    collection, ``pending`` that a job is on its way, ``moved_at`` when either last changed.
    """

    version: int | None
    settled: bool
    pending: bool
    moved_at: datetime | None


class Difference(StrEnum):
    """How a memory differs."""

    MISSING = "missing"
    OUTDATED = "outdated"
    ORPHANED = "orphaned"


def digest(rows: Iterable[tuple[str, int]]) -> str:
    """The MD5 of ``id:version`` joined by commas, of rows in the order of their ids; empty for no rows.

    MD5 because Postgres computes the same where the rows are; nobody gains by a collision here.
    """
    text = ",".join(f"{memory_id}:{version}" for memory_id, version in rows)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() if text else ""


def buckets(after: str, upto: str | None, tenants: Iterable[str], rows: Sequence[Key], size: int) -> list[Bucket]:
    """Cut the stretch (after, upto] of the index's order into buckets of one tenant and at most ``size`` rows.

    ``rows`` are those the index has there, in order; ``upto`` None is the end.  Tenants without rows get one bucket.
    """
    held: dict[str, list[str]] = {}
    for tenant, memory_id in rows:
        held.setdefault(tenant, []).append(memory_id)
    cut: list[Bucket] = []
    for tenant in sorted({*tenants, *held}, key=lambda name: f"{name}|"):
        reach = _reach(tenant, after, upto)
        if reach is None:
            continue
        low, high = reach
        ends = [memory_id for memory_id in held.get(tenant, ())[size - 1 :: size] if memory_id < high]
        cut += [Bucket(tenant, above, below) for above, below in pairwise([low, *ends, high])]
    return cut


def _reach(tenant: str, after: str, upto: str | None) -> tuple[str, str] | None:
    """The ids (above, upto] of a tenant that lie in a stretch of the index's order; None where it has none."""
    prefix = f"{tenant}|"
    low, high = "", LAST_ID
    if after.startswith(prefix):
        low = after.removeprefix(prefix)
    elif after > prefix:
        return None
    if upto is not None and upto.startswith(prefix):
        high = upto.removeprefix(prefix)
    elif upto is not None and upto < prefix:
        return None
    return low, high


def difference(indexed_version: int | None, truth: TruthRow | None, *, belongs: bool) -> Difference | None:
    """How one memory differs; None while it does not, or while a job is on its way to it.

    ``indexed_version`` is None when the index has no row.  ``belongs`` says whether the tenant's memories are kept
    in this collection at all.
    """
    if truth is not None and truth.pending and belongs:
        return None
    if truth is None or truth.version is None or not belongs:
        return Difference.ORPHANED if indexed_version is not None else None
    if indexed_version is None:
        return Difference.MISSING
    if not truth.settled or indexed_version != truth.version:
        return Difference.OUTDATED
    return None

"""What bulk work needs from the outside, as Protocols; like ``ports``, apart from it for its length.

Every store has a full in-memory twin in ``stores/inmemory`` and one conformance suite that twin and real store pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memory_server.domain.imports import Admitted, Committed, Item, Lease
from memory_server.ports import KeywordTerms
from soma_contract.changes import Change
from soma_contract.errors import SomaError
from soma_contract.filters import Filter
from soma_contract.ids import keyed_memory_id
from soma_contract.links import Link, LinkKey
from soma_contract.memory import Memory, View
from soma_contract.records import ImportJob, ImportOptions, Refused
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class PreparedMemory:
    """A memory with what can be computed before any row is read."""

    admitted: Admitted
    content: bytes
    terms: KeywordTerms

    @property
    def ids(self) -> list[str]:
        """The ids of rows it may touch."""
        memory = self.admitted.memory
        return [memory.memory_id, keyed_memory_id(memory.namespace, memory.key)] if memory.key else [memory.memory_id]


Prepared = PreparedMemory | Link | SomaError
"""A record as it is committed."""


class ImportStore(Protocol):
    """Where import jobs are kept, and where their records go."""

    async def create(self, tenant: Tenant, options: ImportOptions) -> ImportJob:
        """Make a job; the same request id finds the same job, with other options it is RequestIdReusedError."""
        ...

    async def get(self, tenant: Tenant, import_id: str) -> ImportJob | None:
        """Read a job."""
        ...

    async def cancel(self, tenant: Tenant, import_id: str) -> ImportJob | None:
        """End an active job, leave any other as it is; what is stored stays."""
        ...

    async def refusals(self, tenant: Tenant, import_id: str, *, after: int, limit: int) -> list[Refused]:
        """Read refused records behind an offset, in order."""
        ...

    async def lease(self, tenant: Tenant, import_id: str) -> tuple[ImportJob, Lease] | None:
        """Take the lease of an active job from whoever holds it; of any other job nothing changes."""
        ...

    async def check(self, tenant: Tenant, lease: Lease) -> None:
        """Raise ImportLeaseLostError or ImportNotActiveError unless the lease is still held."""
        ...

    def prepare(self, item: Item) -> Prepared:
        """Do with a record what needs no row; what comes back goes to :meth:`commit`."""
        ...

    async def commit(self, tenant: Tenant, lease: Lease, offset: int, records: Sequence[Prepared]) -> Committed:
        """Write prepared records, the first of them at ``offset``, all in one transaction with the job's new offset.

        When more are refused than may be, the job fails there: what comes after is left out.  Raises
        ImportLeaseLostError, ImportNotActiveError, WriteConflictError, ComponentUnavailableError; then nothing, or
        a part that the job's offset tells of, is written.
        """
        ...

    async def finish(self, tenant: Tenant, lease: Lease, total: int) -> ImportJob:
        """End a job well; raises OffsetGapError unless exactly ``total`` records are committed."""
        ...

    async def waiting(self, tenant: Tenant, at_most: int) -> int:
        """Count the tenant's index jobs that wait, up to a number."""
        ...


# --- exports -------------------------------------------------------------------------------------


class Snapshot(Protocol):
    """A tenant's memories and links as of one moment."""

    @property
    def revision(self) -> int:
        """The tenant's revision of that moment."""
        ...

    async def memories(
        self, filter: Filter, *, after: str, embeddings: bool, limit: int, size: int
    ) -> Sequence[Memory]:
        """Read living memories behind an id, in id order: at most ``limit``, and about ``size`` bytes of them.

        With ``embeddings`` they bring their vector, and ``embedding_model`` says whose it is: a supplied one the name
        it was supplied with, one that this server's embedder made the key of its profile.  Without, neither is set.
        """
        ...

    async def links(self, filter: Filter, *, after: LinkKey | None, limit: int) -> Sequence[Link]:
        """Read links whose ends both live and match, behind a key, in the order of their keys; strengths as stored."""
        ...


class ExportSource(Protocol):
    """Opens snapshots."""

    def snapshot(self, tenant: Tenant) -> AbstractAsyncContextManager[Snapshot]:
        """Open a snapshot; raises OverloadedError while too many are open."""
        ...


# --- changes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One change with its place in the changelog; ``namespaces`` are those of the memory, or of a link's ends.

    ``change`` is None for a link that has been changed again since: that change is told in its own place.
    """

    revision: int
    ordinal: int
    committed_at: datetime
    namespaces: tuple[str, ...]
    change: Change | None


class ChangeFeed(Protocol):
    """The changelog, read in the order of commits: a revision is seen only when all before it are."""

    async def revision(self, tenant: Tenant) -> int:
        """Read the last committed revision; 0 for none."""
        ...

    async def read(self, tenant: Tenant, after: tuple[int, int], limit: int, view: View) -> list[Line]:
        """Read up to ``limit`` lines behind a (revision, ordinal).

        Memories come as they were then; what is forgotten, expired or no longer kept since is redacted.  Raises
        RevisionCompactedError when lines behind ``after`` are no longer kept.
        """
        ...

"""The memory server as the brain sees it: what it answers, and the Protocols of asking it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from soma_contract.filters import Filter
from soma_contract.memory import Command, Memory, Origin, Target, View, Written
from soma_contract.recall import Hit, RecallQuery, Summary
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class MemoryList:
    """One page of memories; an empty token ends the list."""

    memories: tuple[Memory, ...]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class MemoryPast:
    """One page of versions, newest first."""

    versions: tuple[Memory, ...]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class ForgottenSoFar:
    """Progress of a deletion; `final` on the last."""

    matched: int
    deleted: int
    revision: int
    final: bool = False


class StoredHit(Protocol):
    """A hit as the memory server sent it; it is read only by those who have to, since most are just passed on."""

    @property
    def memory_id(self) -> str:
        """The memory found."""

    @property
    def wire(self) -> object:
        """The hit in the form in which it came."""

    def read(self) -> Hit:
        """Return the hit."""


@dataclass(frozen=True, slots=True)
class LongTermAnswer:
    """What the memory server recalled."""

    hits: tuple[StoredHit, ...]
    summary: Summary


class LongTerm(Protocol):
    """The memory server; every method raises its refusal, or CircuitBreakerOpenError without asking."""

    async def write(
        self,
        tenant: Tenant,
        command: Command,
        *,
        origin: Origin | None = None,
        request_id: str | None = None,
        most_s: float | None = None,
    ) -> Written:
        """Commit one command."""

    async def get(
        self, tenant: Tenant, target: Target, *, view: View, as_of: datetime | None, allow_degraded: bool
    ) -> tuple[Memory, bool]:
        """Read one memory and whether it came from a cache."""

    async def batch_get(self, tenant: Tenant, targets: Sequence[Target], *, view: View) -> list[Memory | None]:
        """Read memories in the order of the targets, None for the missing."""

    async def list_memories(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        key_prefix: str,
        order: str,
        descending: bool,
        page_size: int,
        page_token: str,
        view: View,
    ) -> MemoryList:
        """Read one page."""

    async def history(self, tenant: Tenant, memory_id: str, *, page_size: int, page_token: str) -> MemoryPast:
        """Read one page of versions."""

    def forget_matching(
        self, tenant: Tenant, filter: Filter, *, dry_run: bool, expected: int | None, request_id: str
    ) -> AsyncIterator[ForgottenSoFar]:
        """Delete what matches, with progress."""

    async def recall(self, tenant: Tenant, query: RecallQuery) -> LongTermAnswer:
        """Recall in long-term memory."""


class Endings(Protocol):
    """What ends in long-term memory."""

    def of(self, tenant: Tenant) -> AsyncGenerator[Sequence[str], None]:
        """Yield the ids of a tenant's memories as they end; an empty batch first, after which none is missed.

        Raises what the memory server answers when the stream ends, or CircuitBreakerOpenError without asking.
        """

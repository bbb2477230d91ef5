"""The journal on Postgres: writes combined per tenant, reads in one transaction each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from memory_server.ports import Analyse, Listing, MemoryPage
from memory_server.stores.calls import Answers, Call, Outcome
from memory_server.stores.postgres.batches import Batches, LostRaceError
from memory_server.stores.postgres.combining import Combining, Waiting
from memory_server.stores.postgres.errors import waited_in_vain
from memory_server.stores.postgres.pools import Pools
from memory_server.stores.postgres.reads import Reads
from memory_server.stores.requests import Request
from soma_contract.errors import BudgetSpentError, InternalError, SomaError, WriteConflictError
from soma_contract.filters import Filter
from soma_contract.memory import Command, Memory, Origin, Target, View, Written
from soma_contract.tenant import Tenant

_TRIES = 4
_BATCH_S = 5.0
# Together, calls wait only briefly for a row that some other server holds: the wait may be one call's own matter.
_LOCK_TOGETHER_S = 0.25
_LOCK_ALONE_S = 1.0
_LOCK_BRIEFLY_S = 0.05

_Waiting = Waiting[Call, Answers]


@dataclass(frozen=True, slots=True)
class PostgresJournal:
    """The truth.  Made by :func:`open_journal`."""

    reads: Reads
    combining: Combining[Call, Answers]
    analyse: Analyse
    default_deadline_s: float = 10.0

    async def write(
        self,
        tenant: Tenant,
        commands: Sequence[Command],
        *,
        origin: Origin | None = None,
        atomic: bool = False,
        deadline_s: float | None = None,
    ) -> list[Written | SomaError]:
        """Commit commands in order; see :class:`memory_server.ports.Journal`."""
        if not commands:
            return []
        requests = [Request.of(command, origin) for command in commands]
        return await self._submit(tenant, requests, atomic=atomic, deadline_s=deadline_s)

    async def sweep(self, tenant: Tenant, memory_ids: Sequence[str]) -> int:
        """Forget those of these memories that have expired, as any other forgetting; answers how many."""
        if not memory_ids:
            return 0
        requests = [Request.sweep(memory_id) for memory_id in memory_ids]
        answers = await self._submit(tenant, requests, atomic=False, deadline_s=None)
        return sum(isinstance(answer, Written) and answer.changed for answer in answers)

    async def _submit(
        self, tenant: Tenant, requests: Sequence[Request], *, atomic: bool, deadline_s: float | None
    ) -> Answers:
        return await self.combining.submit(
            tenant,
            Call.of(requests, self.analyse, atomic=atomic),
            weight=len(requests),
            deadline_s=self.default_deadline_s if deadline_s is None else deadline_s,
        )

    async def get(
        self,
        tenant: Tenant,
        targets: Sequence[Target],
        *,
        as_of: datetime | None = None,
        view: View = View.BASIC,
    ) -> list[Memory | None]:
        """Read memories in the order of the targets; absent, deleted or expired ones are None."""
        return await self.reads.get(tenant, targets, as_of=as_of, view=view)

    async def list_memories(self, tenant: Tenant, listing: Listing) -> MemoryPage:
        """Read one page of the memories that match."""
        return await self.reads.list_memories(tenant, listing)

    async def history(self, tenant: Tenant, memory_id: str, *, before_version: int | None, limit: int) -> list[Memory]:
        """Read the kept versions of a memory, newest first."""
        return await self.reads.history(tenant, memory_id, before_version=before_version, limit=limit)

    async def matching_ids(self, tenant: Tenant, filter: Filter, limit: int) -> list[str]:
        """Read the ids of up to ``limit`` live memories that match, in id order."""
        return await self.reads.matching_ids(tenant, filter, limit)

    async def revision(self, tenant: Tenant) -> int:
        """Read the tenant's last committed revision; 0 for none."""
        return await self.reads.revision(tenant)


@asynccontextmanager
async def open_journal(
    pools: Pools, analyse: Analyse, *, versions_kept: int = 20, combined: int = 256
) -> AsyncIterator[PostgresJournal]:
    """Open the journal; leaving waits for the transactions under way.

    ``combined`` is how many commands may share a transaction.
    """
    batches = Batches(pools.interactive, analyse, versions_kept)

    async def commit(tenant: Tenant, waiting: Sequence[_Waiting]) -> None:
        await _commit(batches, tenant, waiting)

    async with Combining[Call, Answers](commit, weight=combined) as combining:
        yield PostgresJournal(Reads(pools.interactive), combining, analyse)


async def _commit(batches: Batches, tenant: Tenant, waiting: Sequence[_Waiting]) -> None:
    """Commit calls together; when that fails for a reason that may be one call's own, each alone."""
    try:
        outcomes = await _tried(batches, tenant, waiting, _LOCK_TOGETHER_S)
    except (WriteConflictError, BudgetSpentError, InternalError) as error:
        if len(waiting) == 1:
            _answer(waiting[0], error)
        else:
            await _commit_alone(batches, tenant, waiting)
    except SomaError as error:
        for one in waiting:
            _answer(one, error)
    else:
        for one, outcome in zip(waiting, outcomes, strict=True):
            _answer(one, outcome)


async def _commit_alone(batches: Batches, tenant: Tenant, waiting: Sequence[_Waiting]) -> None:
    """Commit each call in a transaction of its own."""
    lock_s = _LOCK_ALONE_S
    for one in waiting:
        if one.answer.done():
            continue
        try:
            (outcome,) = await _tried(batches, tenant, [one], lock_s)
        except SomaError as error:
            _answer(one, error)
            if isinstance(error, WriteConflictError):
                # Who else wants that row will not get it either; the tenant's other calls should not wait for them.
                lock_s = _LOCK_BRIEFLY_S
        else:
            _answer(one, outcome)


async def _tried(batches: Batches, tenant: Tenant, waiting: Sequence[_Waiting], lock_s: float) -> list[Outcome]:
    """Commit, starting over while other servers are faster; the lookups of a second try find what they wrote."""
    calls = [one.work for one in waiting]
    for attempt in range(_TRIES):
        remaining_s = max(one.due for one in waiting) - asyncio.get_running_loop().time()
        try:
            return await batches.commit(
                tenant,
                calls,
                deadline_s=min(remaining_s, _BATCH_S),
                lock_s=lock_s,
                cautious=attempt > 0,
            )
        except LostRaceError:
            continue
        except WriteConflictError as error:
            if waited_in_vain(error):
                raise
    raise WriteConflictError


def _answer(waiting: _Waiting, outcome: Outcome) -> None:
    if waiting.answer.done():
        return
    if isinstance(outcome, SomaError):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)

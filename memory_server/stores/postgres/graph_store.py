"""The graph store on Postgres: writes combined per tenant, reads in one transaction each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from memory_server.ports import Expansion
from memory_server.stores.postgres.batches import LostRaceError
from memory_server.stores.postgres.combining import Combining, Waiting
from memory_server.stores.postgres.graph_reads import GraphReads
from memory_server.stores.postgres.link_batches import LinkBatches, LinkRequest
from memory_server.stores.postgres.pools import Pools
from soma_contract.errors import BudgetSpentError, InternalError, SomaError, WriteConflictError
from soma_contract.links import Link, LinkCommand, LinkKey, LinkWritten, Reach
from soma_contract.memory import Origin, Target
from soma_contract.tenant import Tenant

_TRIES = 4
_BATCH_S = 5.0
# As in the journal: together, calls wait only briefly for a memory that another server holds.
_LOCK_TOGETHER_S = 0.25
_LOCK_ALONE_S = 1.0

_Requests = tuple[LinkRequest, ...]
_Answers = list[LinkWritten | SomaError]
_Waiting = Waiting[_Requests, _Answers]


@dataclass(frozen=True, slots=True)
class PostgresGraphStore:
    """See :class:`memory_server.ports.GraphStore`.  Made by :func:`open_graph_store`."""

    reads: GraphReads
    batches: LinkBatches
    combining: Combining[_Requests, _Answers]
    default_deadline_s: float = 10.0

    async def write(
        self,
        tenant: Tenant,
        commands: Sequence[LinkCommand],
        *,
        origin: Origin | None = None,
        deadline_s: float | None = None,
    ) -> list[LinkWritten | SomaError]:
        """Commit commands in order."""
        if not commands:
            return []
        return await self.combining.submit(
            tenant,
            tuple(LinkRequest.of(command, origin) for command in commands),
            weight=len(commands),
            deadline_s=self.default_deadline_s if deadline_s is None else deadline_s,
        )

    async def answered(self, tenant: Tenant, request_ids: Sequence[str]) -> set[str]:
        """Return those request ids that have been answered before."""
        return await self.batches.answered(tenant, request_ids) if request_ids else set()

    async def resolve(self, tenant: Tenant, targets: Sequence[Target]) -> list[str | None]:
        """Read the ids of living memories in the order of the targets."""
        return await self.reads.resolve(tenant, targets)

    async def expand(
        self,
        tenant: Tenant,
        memory_ids: Sequence[str],
        reach: Reach,
        *,
        each: int,
        limit: int,
        whole: bool = False,
        deadline_s: float | None = None,
    ) -> Expansion:
        """Read the strongest steps on from each memory."""
        return await self.reads.expand(
            tenant, memory_ids, reach, each=each, limit=limit, whole=whole, deadline_s=deadline_s
        )

    async def among(
        self, tenant: Tenant, memory_ids: Sequence[str], reach: Reach, *, limit: int, deadline_s: float | None = None
    ) -> Expansion:
        """Read the links that lead from one of these to another."""
        return await self.reads.among(tenant, memory_ids, reach, limit=limit, deadline_s=deadline_s)

    async def referring(self, tenant: Tenant, memory_ids: Sequence[str]) -> set[str]:
        """Return those memories that have links which their payloads made."""
        return await self.reads.referring(tenant, memory_ids)

    async def links(self, tenant: Tenant, keys: Sequence[LinkKey]) -> list[Link | None]:
        """Read links in the order of the keys."""
        return await self.reads.links(tenant, keys)

    async def page(
        self, tenant: Tenant, memory_id: str, reach: Reach, *, at: datetime, after: Link | None, limit: int
    ) -> list[Link]:
        """Read links of a memory, strongest first."""
        return await self.reads.page(tenant, memory_id, reach, at=at, after=after, limit=limit)


@asynccontextmanager
async def open_graph_store(pools: Pools, *, combined: int = 256) -> AsyncIterator[PostgresGraphStore]:
    """Open the graph store; leaving waits for the transactions under way.

    ``combined`` is how many commands may share a transaction.
    """
    batches = LinkBatches(pools.interactive)

    async def commit(tenant: Tenant, waiting: Sequence[_Waiting]) -> None:
        await _commit(batches, tenant, waiting)

    async with Combining[_Requests, _Answers](commit, weight=combined) as combining:
        yield PostgresGraphStore(GraphReads(pools.interactive), batches, combining)


async def _commit(batches: LinkBatches, tenant: Tenant, waiting: Sequence[_Waiting]) -> None:
    """Commit calls together; when that fails for a reason that may be one call's own, each alone."""
    try:
        answers = await _tried(batches, tenant, waiting, _LOCK_TOGETHER_S)
    except (WriteConflictError, BudgetSpentError, InternalError) as error:
        if len(waiting) == 1:
            _fail(waiting[0], error)
            return
        for one in waiting:
            if not one.answer.done():
                await _commit(batches, tenant, [one])
    except SomaError as error:
        for one in waiting:
            _fail(one, error)
    else:
        for one in waiting:
            its, answers = answers[: one.weight], answers[one.weight :]
            if not one.answer.done():
                one.answer.set_result(its)


async def _tried(batches: LinkBatches, tenant: Tenant, waiting: Sequence[_Waiting], lock_s: float) -> _Answers:
    """Commit, starting over while other servers are faster."""
    requests = [request for one in waiting for request in one.work]
    lock_s = lock_s if len(waiting) > 1 else _LOCK_ALONE_S
    for attempt in range(_TRIES):
        remaining_s = max(one.due for one in waiting) - asyncio.get_running_loop().time()
        try:
            return await batches.commit(tenant, requests, deadline_s=min(remaining_s, _BATCH_S), lock_s=lock_s)
        except LostRaceError:
            continue
        except WriteConflictError:
            if attempt == _TRIES - 1 or len(waiting) > 1:
                raise
    raise WriteConflictError


def _fail(waiting: _Waiting, error: SomaError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)

"""The index pipeline's queue: what the index should hold, what it holds, and who is bringing it there."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from memory_server.ports import Analyse, Clock, Collection, IndexJob, IndexLag, StoredVectors
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE
from memory_server.stores.postgres.index_collections import Collections
from memory_server.stores.postgres.pools import Pools
from memory_server.stores.postgres.records import WIDTH, columns, memory_of
from memory_server.stores.postgres.term_stats import BATCH, TermStatistics
from memory_server.stores.postgres.vectors import vector_values, vectors_of
from soma_contract.tenant import Tenant, admin_tenant

BUSY_TENANTS = 16
FOLD_EVERY_S = 1.0
LONE_EVERY = 8
"""Every so many claims, a job that failed often is tried, and then alone: it may take its worker down."""
COLLECTION_FRESH_S = 1.0


@dataclass(slots=True)
class PostgresIndexQueue:
    """See :class:`memory_server.ports.IndexQueue`."""

    pools: Pools
    analyse: Analyse
    clock: Clock
    prefix: str = "soma_memories"
    capacity: int = 10_000
    _after: str = ""
    _claims: int = 0
    _folded_at: float = float("-inf")
    _known: OrderedDict[tuple[str, str, int], tuple[float, Collection]] = field(default_factory=OrderedDict)

    async def claim(self, *, limit: int, lease_s: float, profile: str = "") -> list[IndexJob]:
        """Claim due jobs, in turn from all tenants that have some, the oldest of each."""
        await self._fold()
        self._claims += 1
        lease = str(uuid.uuid4())
        async with self.pools.indexing.worker() as connection:
            lone = self._claims % LONE_EVERY == 0
            taken = await self._take(connection, 1, lease_s, lease, often_failed=True) if lone else []
            if not taken:
                taken = await self._take(connection, limit, lease_s, lease, often_failed=False)
            if not taken and not lone:
                taken = await self._take(connection, 1, lease_s, lease, often_failed=True)
            jobs = await self._read(connection, taken, lease, profile)
        if not jobs and await self._collections.requeue():
            return await self.claim(limit=limit, lease_s=lease_s, profile=profile)
        return jobs

    async def put_vectors(self, profile: str, rows: Sequence[tuple[IndexJob, StoredVectors]]) -> None:
        """Keep the vectors of versions that are still current."""
        if not rows:
            return
        ordered = sorted(rows, key=lambda row: (row[0].tenant.name, row[0].memory_id))
        packed = [vector_values(vectors) for _, vectors in ordered]
        async with self.pools.indexing.worker() as connection:
            await connection.execute(
                sql.query("put_vectors"),
                profile,
                [job.tenant.name for job, _ in ordered],
                [job.memory_id for job, _ in ordered],
                [job.version for job, _ in ordered],
                *zip(*packed, strict=True),
            )

    async def settle(self, jobs: Sequence[IndexJob], collection: Collection | None) -> None:
        """Mark the claimed versions as indexed; without a collection, only departures are settled."""
        gone = [_leased(job) for job in jobs if job.memory is None]
        held = [_leased(job) for job in jobs if job.memory is not None]
        async with self.pools.indexing.worker() as connection:
            if gone:
                await connection.executemany(sql.query("settle_gone"), sorted(gone))
                await connection.executemany(sql.query("release_job"), sorted(job[:3] for job in gone))
            if held and collection is not None:
                epoch = collection.epoch if await self._collections.still_in(connection, collection) else 0
                await connection.executemany(sql.query("settle_job"), [(*job, epoch) for job in sorted(held)])

    async def postpone(self, jobs: Sequence[IndexJob], reason: str, *, counts: bool) -> None:
        """Give jobs back with backoff; ``counts`` is False while a whole store is away."""
        leased = sorted(_leased(job)[:3] for job in jobs)
        if leased:
            async with self.pools.indexing.worker() as connection:
                await connection.executemany(sql.query("postpone_job"), [(*job, reason, counts) for job in leased])

    async def lag(self, tenant: Tenant | None = None) -> IndexLag:
        """Read how far the index is behind."""
        name = tenant.name if tenant is not None else None
        async with self.pools.indexing.worker() as connection:
            row = await connection.fetchrow(sql.query("lag"), name)
        return IndexLag(row["rows"], row["oldest_s"], row["poisoned"])

    async def active_collection(self, tenant: Tenant, profile: str, dimension: int) -> Collection:
        """Read which collection a tenant's memories are in; the answer is kept for a second.

        Raises EmbeddingProfileMismatchError when the tenant's memories are embedded with another profile.
        """
        named = tenant.name, profile, dimension
        known = self._known.get(named)
        if known is not None and self.clock.monotonic() - known[0] < COLLECTION_FRESH_S:
            return known[1]
        collection = await self._collections.active(tenant, profile, dimension)
        self._known[named] = self.clock.monotonic(), collection
        self._known.move_to_end(named)
        while len(self._known) > self.capacity:
            self._known.popitem(last=False)
        return collection

    def forget_collections(self) -> None:
        """Look up collections anew, at once and not within a second; called when one was switched here."""
        self._known.clear()

    async def collections(self) -> list[Collection]:
        """Read all active collections."""
        return await self._collections.all()

    async def new_epoch(self, collection: Collection) -> Collection:
        """Declare a collection lost: its rows count as un-indexed and are queued again."""
        self.forget_collections()
        return await self._collections.new_epoch(collection)

    @property
    def _collections(self) -> Collections:
        return Collections(self.pools.indexing, self.prefix)

    async def _fold(self) -> None:
        """Fold term changes once a second, and with every claim while there are more than one batch of them."""
        if self.clock.monotonic() - self._folded_at < FOLD_EVERY_S:
            return
        folded = await TermStatistics(self.pools.indexing).fold()
        if folded < BATCH:
            self._folded_at = self.clock.monotonic()

    async def _take(
        self, connection: asyncpg.Connection, limit: int, lease_s: float, lease: str, *, often_failed: bool
    ) -> list[asyncpg.Record]:
        """Claim up to ``limit`` jobs, an equal share of each busy tenant first."""
        busy = await self._busy(connection)
        taken: list[asyncpg.Record] = []
        while busy and len(taken) < limit:
            share = -(-(limit - len(taken)) // len(busy))
            rows = await connection.fetch(sql.query("claim_jobs"), busy, share, limit - len(taken), often_failed)
            leased = [(row["tenant"], row["memory_id"], lease_s, lease) for row in rows]
            await connection.executemany(sql.query("lease_job"), leased)
            taken += rows
            given: dict[str, int] = {}
            for row in rows:
                given[row["tenant"]] = given.get(row["tenant"], 0) + 1
            busy = [tenant for tenant, count in given.items() if count >= share]
        return taken

    async def _busy(self, connection: asyncpg.Connection) -> list[str]:
        """The next tenants with jobs, going round by name."""
        rows = await connection.fetch(sql.query("busy_tenants"), self._after, BUSY_TENANTS)
        if len(rows) < BUSY_TENANTS and self._after:
            first = await connection.fetch(sql.query("busy_tenants"), "", BUSY_TENANTS - len(rows))
            rows = [*rows, *(row for row in first if row["tenant"] <= self._after)]
        tenants = [row["tenant"] for row in rows]
        self._after = tenants[-1] if len(tenants) == BUSY_TENANTS else ""
        return tenants

    async def _read(
        self, connection: asyncpg.Connection, taken: Sequence[asyncpg.Record], lease: str, profile: str
    ) -> list[IndexJob]:
        if not taken:
            return []
        query = sql.filled("read_claimed", columns=columns("m", embedding="m.embedding"), live=LIVE)
        rows = await connection.fetch(
            query, [row["tenant"] for row in taken], [row["memory_id"] for row in taken], profile
        )
        states = {(row["tenant"], row["memory_id"]): row for row in rows}
        return [self._job(row, lease, states.get((row["tenant"], row["memory_id"]))) for row in taken]

    def _job(self, taken: asyncpg.Record, lease: str, state: asyncpg.Record | None) -> IndexJob:
        tenant = admin_tenant(taken["tenant"], reason="the indexer works for every tenant")
        memory_id, attempts = str(taken["memory_id"]), taken["attempts"] + 1
        if state is None or not state["lives"]:
            version = state["version"] if state is not None else taken["version"]
            return IndexJob(tenant, memory_id, version, attempts, None, None, "", lease)
        memory = memory_of(state)
        vectors = None if state["dense"] is None else vectors_of(*state[WIDTH + 2 : WIDTH + 6])
        keyword_text = self.analyse(memory).keyword_text
        return IndexJob(tenant, memory_id, memory.version, attempts, memory, vectors, keyword_text, lease)


def _leased(job: IndexJob) -> tuple[str, str, str | None, int]:
    """What names a claimed job.  Sorted, they are locked in one order by everybody."""
    return job.tenant.name, job.memory_id, job.lease or None, job.version

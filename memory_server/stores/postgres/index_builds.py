"""Filling a collection beside the one that is searched, and putting it in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from memory_server.domain.index_tasks import Key
from memory_server.ports import Analyse, Collection, IndexJob
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE
from memory_server.stores.postgres.index_collections import collection_name
from memory_server.stores.postgres.pools import Pools
from memory_server.stores.postgres.records import WIDTH, columns, memory_of
from memory_server.stores.postgres.vectors import vectors_of
from soma_contract.tenant import Tenant, admin_tenant

NO_ID = "00000000-0000-0000-0000-000000000000"
_BEHIND_ALL_TENANTS = "~"


@dataclass(frozen=True, slots=True)
class PostgresIndexBuilds:
    """See :class:`memory_server.core.rebuilding.IndexBuilds`."""

    pools: Pools
    analyse: Analyse
    prefix: str = "soma_memories"

    async def next_epoch(self) -> int:
        """Take an epoch that no collection has had."""
        async with self.pools.bulk.worker() as connection:
            return int(await connection.fetchval(sql.query("next_epoch")))

    async def rows(
        self, source: Collection, epoch: int, *, profile: str, tenant_name: str, after: Key | None, limit: int
    ) -> list[IndexJob]:
        """Read memories that the source holds and the collection of ``epoch`` does not, behind a key.

        Those that do not live have no memory.  Vectors are of ``profile``.
        """
        text = sql.filled(
            "build_rows",
            columns=columns("m", embedding="m.embedding"),
            live=LIVE,
            belongs=sql.filled("part_belongs", profile="$7", owner="$8"),
        )
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(
                text,
                *(after or (tenant_name, NO_ID)),
                tenant_name or _BEHIND_ALL_TENANTS,
                source.epoch,
                epoch,
                profile,
                source.profile,
                source.tenant_name,
                limit,
            )
        return [self._row(row) for row in rows]

    async def mark(self, rows: Sequence[IndexJob], source: Collection, epoch: int) -> None:
        """Note that these versions are in the collection of ``epoch`` as well; one that moved on is not."""
        marks = sorted((row.tenant.name, row.memory_id, row.version, source.epoch, epoch) for row in rows)
        async with self.pools.bulk.worker() as connection:
            await connection.executemany(sql.query("build_mark"), marks)

    async def left(self, source: Collection, epoch: int, tenant_name: str) -> int:
        """Count what the collection of ``epoch`` does not hold yet."""
        async with self.pools.bulk.worker() as connection:
            return int(await connection.fetchval(sql.query("build_left"), tenant_name, source.epoch, epoch))

    async def unmark(self, source: Collection, tenant_name: str) -> None:
        """Forget what an abandoned move noted about a tenant's memories."""
        async with self.pools.bulk.worker() as connection:
            await connection.execute(sql.query("build_unmark"), tenant_name, source.epoch)

    async def switch(self, source: Collection, target: Collection) -> bool:
        """Put a collection in the place of another; False when that one was lost meanwhile."""
        async with self.pools.bulk.worker() as connection:
            named = source.name, source.epoch, target.name, target.epoch
            return await connection.fetchval(sql.query("build_switch"), *named) is not None

    async def elsewhere(self, profile: str, tenant_name: str) -> list[tuple[Tenant, str, int]]:
        """Read (tenant, profile, dimension) of those embedded with another profile; of one tenant or all (empty)."""
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(sql.query("move_tenants"), profile, tenant_name)
        return [(_tenant(row["tenant"]), row["profile"], row["dimension"]) for row in rows]

    async def collection(self, tenant: Tenant, profile: str, dimension: int) -> Collection:
        """Read the collection a tenant has, or would have, under a profile, making its entry if needed."""
        async with self.pools.bulk.worker() as connection:
            row = await connection.fetchrow(sql.query("find_collection"), tenant.name, profile)
            if row["name"] is None:
                owner = tenant.name if row["dedicated"] else ""
                name = collection_name(self.prefix, profile, owner)
                await connection.execute(sql.query("make_collection"), name, profile, owner, dimension)
                row = await connection.fetchrow(sql.query("find_collection"), tenant.name, profile)
        return Collection(
            row["name"], row["epoch"], row["profile"], row["dimension"], row["tenant"], filled=row["filled"]
        )

    async def move(self, tenant: Tenant, source: Collection, target: Collection) -> bool:
        """Have a tenant searched in the target from now on; False when either collection was lost meanwhile.

        Jobs that workers hold are taken from them, since they would mark them as being in the source.
        """
        async with self.pools.bulk.worker() as connection:
            for collection in sorted((source, target), key=lambda one: one.name):
                if await connection.fetchval(sql.query("move_lock"), collection.name, collection.epoch) is None:
                    return False
            changed = tenant.name, source.profile, target.profile, target.dimension
            if await connection.fetchval(sql.query("move_tenant"), *changed) is None:
                return False
            await connection.execute(sql.query("move_strays"), tenant.name, target.epoch, True)
        return True

    async def queue_strays(self, tenant: Tenant, target: Collection) -> None:
        """Queue what a tenant's collection does not hold and nobody is bringing there."""
        async with self.pools.bulk.worker() as connection:
            await connection.execute(sql.query("move_strays"), tenant.name, target.epoch, False)

    async def drop_vectors(self, tenant: Tenant, profile: str, limit: int) -> int:
        """Delete up to ``limit`` vectors that a tenant has of a profile and return how many were."""
        async with self.pools.bulk.worker() as connection:
            status: str = await connection.execute(sql.query("drop_vectors"), tenant.name, profile, limit)
        return int(status.rsplit(maxsplit=1)[-1])

    def _row(self, row: asyncpg.Record) -> IndexJob:
        tenant, memory_id = _tenant(row["tenant"]), str(row["id"])
        if not row["lives"]:
            return IndexJob(tenant, memory_id, 0, 0, None, None, "")
        memory = memory_of(row)
        vectors = None if row["dense"] is None else vectors_of(*row[WIDTH + 3 : WIDTH + 7])
        keyword_text = self.analyse(memory).keyword_text
        return IndexJob(tenant, memory_id, memory.version, 0, memory, vectors, keyword_text)


def _tenant(name: str) -> Tenant:
    return admin_tenant(name, reason="collections are made of every tenant's memories")

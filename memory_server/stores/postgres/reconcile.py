"""What the truth says the index should hold, by digest and by row, and sending what differs to the indexer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memory_server.domain.index_tasks import Bucket, Key, TruthRow
from memory_server.ports import Collection
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE
from memory_server.stores.postgres.pools import Pools


@dataclass(frozen=True, slots=True)
class PostgresIndexTruth:
    """See :class:`memory_server.core.reconciling.IndexTruth`."""

    pools: Pools

    async def tenants(self, collection: Collection) -> list[str]:
        """Read the tenants whose memories a collection holds."""
        return await self._names("reconcile_tenants", collection)

    async def belonging(self, collection: Collection, tenants: Sequence[str]) -> set[str]:
        """Of these tenants, read those whose memories the collection holds."""
        return set(await self._names("reconcile_belonging", collection, list(tenants)))

    async def digests(self, collection: Collection, buckets: Sequence[Bucket]) -> list[tuple[str, int]]:
        """Compute (digest, memories) of what the index should hold in each bucket."""
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(_of_buckets("reconcile_digests"), *_columns(buckets), collection.epoch)
        return [(row["digest"], row["memories"]) for row in rows]

    async def rows(self, collection: Collection, buckets: Sequence[Bucket]) -> dict[Key, TruthRow]:
        """Read the memories of buckets."""
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(
                _of_buckets("reconcile_rows"), *_columns(buckets), collection.epoch, collection.name
            )
        return {
            (row["tenant"], str(row["memory_id"])): TruthRow(
                row["version"], row["settled"], row["pending"], row["moved_at"]
            )
            for row in rows
        }

    async def requeue(self, keys: Sequence[Key]) -> None:
        """Count memories as un-indexed and queue them, so that the indexer writes or removes them."""
        async with self.pools.bulk.worker() as connection:
            await connection.execute(sql.query("reconcile_requeue"), *_pairs(keys))

    async def pending(self, keys: Sequence[Key]) -> int:
        """Count those that still wait for the indexer."""
        async with self.pools.bulk.worker() as connection:
            return int(await connection.fetchval(sql.query("reconcile_pending"), *_pairs(keys)))

    async def moving_to(self, profile: str) -> bool:
        """Whether memories are on their way to a profile's collections."""
        async with self.pools.bulk.worker() as connection:
            return bool(await connection.fetchval(sql.query("moving_to"), profile))

    async def _names(self, query: str, collection: Collection, *values: object) -> list[str]:
        text = sql.filled(query, belongs=sql.filled("part_belongs", profile="$1", owner="$2"))
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(text, collection.profile, collection.tenant_name, *values)
        return [row["tenant"] for row in rows]


def _of_buckets(query: str) -> str:
    return sql.filled(
        query,
        in_bucket=sql.query("part_in_bucket"),
        settled=sql.filled("part_settled", epoch="$4::bigint"),
        live=LIVE,
    )


def _columns(buckets: Sequence[Bucket]) -> tuple[list[str], list[str], list[str]]:
    return (
        [bucket.tenant_name for bucket in buckets],
        [bucket.above for bucket in buckets],
        [bucket.upto for bucket in buckets],
    )


def _pairs(keys: Sequence[Key]) -> tuple[list[str], list[str]]:
    ordered = sorted(keys)
    return [tenant for tenant, _ in ordered], [memory_id for _, memory_id in ordered]

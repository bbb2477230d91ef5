"""What recall reads from the truth: the overlay, keyword search, vector scans and the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray

from memory_server.domain.quantile_sketch import LARGEST, LOG_GAMMA, SMALLEST
from memory_server.ports import Overlay, PoolRow, TermStats
from memory_server.stores.fingerprints import term_keys
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE, Parameters, compiled
from memory_server.stores.postgres.pool_reads import Asked, PoolRead, namespaces
from memory_server.stores.postgres.pools import Pools
from memory_server.stores.postgres.records import columns, memory_of
from memory_server.stores.postgres.vectors import dense_matrix
from soma_contract.filters import Filter
from soma_contract.memory import Memory, Target
from soma_contract.tenant import Tenant

WINDOW = 2_000
"""So many un-indexed rows are looked at one by one; of more, only the newest."""
PENDING_CAP = 10_000
"""Pending rows are not counted further."""


@dataclass(frozen=True, slots=True)
class PostgresRecallSource:
    """See :class:`memory_server.ports.RecallSource`."""

    pools: Pools

    async def overlay(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        terms: Sequence[str],
        epoch: int,
        profile: str,
        keyword_limit: int = 50,
        vector_limit: int = 2_000,
        unembedded_limit: int = 16,
    ) -> Overlay:
        """Search the rows that the index may not hold; one query when there are few of them.

        When there are many, the keyword leg searches all rows instead of those alone: what comes is what an
        index without lag would have proposed.
        """
        query, values = _overlay_query(tenant, filter, terms, epoch, profile, vector_limit)
        async with self.pools.interactive.tenant(tenant) as connection:
            found = await connection.fetch(query, *values)
            truncated = found[0]["open_rows"] > WINDOW
            rows = [row for row in found if row["memory_id"] is not None]
            pending = sum(row["behind"] for row in rows)
            if truncated:
                pending = await _count_behind(connection, tenant, epoch, profile)
                keyword_ids = [
                    memory_id for memory_id, _ in await _search(connection, tenant, filter, terms, keyword_limit)
                ]
            else:
                scored = [(-row["score"], str(row["memory_id"])) for row in rows if row["score"] is not None]
                keyword_ids = [memory_id for _, memory_id in sorted(scored)[:keyword_limit]]
            new = [str(row["memory_id"]) for row in rows if not row["embedded"]][:unembedded_limit]
            unembedded = await _memories(connection, tenant, new) if new else ()
        embedded = [row for row in rows if row["dense"] is not None]
        return Overlay(
            pending_rows=pending,
            keyword_ids=tuple(keyword_ids),
            vector_ids=tuple(str(row["memory_id"]) for row in embedded),
            vectors=dense_matrix([row["dense"] for row in embedded]),
            unembedded=unembedded,
            truncated=truncated,
        )

    async def keyword_search(
        self, tenant: Tenant, filter: Filter, *, terms: Sequence[str], limit: int
    ) -> list[tuple[str, float]]:
        """Search all living rows by BM25 over stored terms; (id, score), best first."""
        async with self.pools.interactive.tenant(tenant) as connection:
            return await _search(connection, tenant, filter, terms, limit)

    async def vector_scan(
        self, tenant: Tenant, filter: Filter, *, profile: str, limit: int
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Read (ids, dense vectors) of up to ``limit`` matching rows in the order of their ids."""
        parameters = Parameters([tenant.name])
        query = sql.filled(
            "vector_scan",
            profile=parameters.add(profile, "text"),
            live=LIVE,
            filter=compiled(filter, parameters),
            limit=parameters.add(limit, "bigint"),
        )
        async with self.pools.interactive.tenant(tenant) as connection:
            rows = await connection.fetch(query, *parameters.values)
        return tuple(str(row[0]) for row in rows), dense_matrix([row[1] for row in rows])

    async def importance_counts(self, tenant: Tenant, namespace: str, *, fresh_s: float) -> Mapping[int, int]:
        """Count a namespace's importances by bucket of a QuantileSketch; counts of an age below ``fresh_s`` will do."""
        age = timedelta(seconds=fresh_s)
        async with self.pools.interactive.tenant(tenant) as connection:
            counts = await connection.fetchval(sql.query("get_importance"), tenant.name, namespace, age)
            if counts is None:
                bounds = SMALLEST, LARGEST, LOG_GAMMA
                counts = await connection.fetchval(sql.query("count_importance"), tenant.name, namespace, *bounds)
        return {int(bucket): count for bucket, count in orjson.loads(counts).items()}

    async def pool(
        self,
        tenant: Tenant,
        filter: Filter,
        ids: Sequence[str],
        *,
        terms: Sequence[str],
        profile: str,
        neighbours: bool,
        details: bool = True,
        exact: Target | None = None,
        exact_text: str = "",
        epoch: int | None = None,
    ) -> tuple[list[PoolRow], TermStats]:
        """Re-read candidates and bring what scoring needs, in one query."""
        asked = Asked(tenant, filter, ids, terms, profile, neighbours, details, exact, exact_text, epoch)
        read = PoolRead(asked, self.pools.rows)
        answer = await self.pools.interactive.read(read.written)
        rows = read.rows(answer)
        return rows, read.stats(answer, rows)


def _term_parts(tenant: Tenant, filter: Filter, terms: Sequence[str], parameters: Parameters) -> dict[str, str]:
    """The pieces that every keyword query has: terms, their weights and the score of a row."""
    times = Counter(terms)
    keys = parameters.add(term_keys(tenant.name, times), "bigint[]")
    weights = sql.filled(
        "part_weights",
        keys=keys,
        times=parameters.add([float(count) for count in times.values()], "float8[]"),
        namespaces=namespaces(filter, parameters),
    )
    norm = sql.query("part_norm")
    places = range(1, len(times) + 1)
    scores = [sql.filled("part_term_score", norm=norm, keys=keys, place=str(place)) for place in places]
    return {"keys": keys, "weights": weights, "score": f"({' + '.join(scores) or '0'})"}


def _overlay_query(
    tenant: Tenant, filter: Filter, terms: Sequence[str], epoch: int, profile: str, vector_limit: int
) -> tuple[str, list[object]]:
    parameters = Parameters([tenant.name])
    parts = _term_parts(tenant, filter, terms, parameters)
    named = parameters.add(profile, "text")
    query = sql.filled(
        "overlay",
        **parts,
        epoch=sql.filled("part_epoch", asked=parameters.add(epoch, "bigint"), profile=named, tenant="$1"),
        profile=named,
        window=parameters.add(WINDOW + 1, "bigint"),
        vectors=parameters.add(vector_limit, "bigint"),
        live=LIVE,
        filter=compiled(filter, parameters),
    )
    return query, parameters.values


async def _search(
    connection: asyncpg.Connection, tenant: Tenant, filter: Filter, terms: Sequence[str], limit: int
) -> list[tuple[str, float]]:
    if not terms:
        return []
    parameters = Parameters([tenant.name])
    query = sql.filled(
        "keyword_search",
        **_term_parts(tenant, filter, terms, parameters),
        live=LIVE,
        filter=compiled(filter, parameters),
        limit=parameters.add(limit, "bigint"),
    )
    return [(str(row[0]), row[1]) for row in await connection.fetch(query, *parameters.values)]


async def _count_behind(connection: asyncpg.Connection, tenant: Tenant, epoch: int, profile: str) -> int:
    parameters = Parameters([tenant.name])
    named = parameters.add(profile, "text")
    query = sql.filled(
        "count_behind",
        epoch=sql.filled("part_epoch", asked=parameters.add(epoch, "bigint"), profile=named, tenant="$1"),
        limit=parameters.add(PENDING_CAP, "bigint"),
    )
    count: int = await connection.fetchval(query, *parameters.values)
    return count


async def _memories(connection: asyncpg.Connection, tenant: Tenant, ids: Sequence[str]) -> tuple[Memory, ...]:
    query = sql.filled("get_by_id", columns=columns("m", embedding="m.embedding"), live=LIVE, vectors="")
    memories = {memory.memory_id: memory for memory in map(memory_of, await connection.fetch(query, tenant.name, ids))}
    return tuple(memories[memory_id] for memory_id in ids if memory_id in memories)

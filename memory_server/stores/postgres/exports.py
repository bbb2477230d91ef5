"""Exports on Postgres: one repeatable-read transaction a stream, paged by key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from memory_server.bulk_ports import Snapshot
from memory_server.pacing import Pace
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE, Parameters, compiled
from memory_server.stores.postgres.link_rows import link_of
from memory_server.stores.postgres.pools import Pools
from memory_server.stores.postgres.records import columns, memory_of
from soma_contract.errors import CursorInvalidError, OverloadedError
from soma_contract.filters import Filter
from soma_contract.links import Link, LinkKey
from soma_contract.memory import Memory
from soma_contract.tenant import Tenant

SNAPSHOT_S = 3_600.0
"""A stream that takes longer is cut, and resumes: an older snapshot would keep dead rows from being cleaned up."""
IDLE_S = 60.0
"""A reader slower than this between two frames resumes too."""
# What lives is decided once a snapshot, or a stream that takes long would see memories go.
_LIVE = LIVE.replace("statement_timestamp()", "transaction_timestamp()")


@dataclass(slots=True)
class PostgresExports:
    """See :class:`memory_server.bulk_ports.ExportSource`; ``profile`` is what this server's embedder makes."""

    pools: Pools
    profile: str
    at_most: int = 2
    """Snapshots at a time: each holds one connection of those that imports need too."""
    _open: int = 0

    @asynccontextmanager
    async def snapshot(self, tenant: Tenant) -> AsyncIterator[Snapshot]:
        """Open a snapshot."""
        if self._open >= self.at_most:
            raise OverloadedError(
                "as many exports are running as this server runs at a time; resume later", scope="exports"
            )
        self._open += 1
        try:
            async with self.pools.bulk.snapshot(tenant, deadline_s=SNAPSHOT_S, idle_s=IDLE_S) as connection:
                revision: int | None = await connection.fetchval(sql.query("revision"), tenant.name)
                yield PostgresSnapshot(connection, tenant, revision or 0, self.profile)
        finally:
            self._open -= 1


@dataclass(frozen=True, slots=True)
class PostgresSnapshot:
    """See :class:`memory_server.bulk_ports.Snapshot`."""

    connection: asyncpg.Connection
    tenant: Tenant
    revision: int
    profile: str

    async def memories(
        self, filter: Filter, *, after: str, embeddings: bool, limit: int, size: int
    ) -> Sequence[Memory]:
        """Read a page of memories; how long rows are is asked first: a thousand of the longest fill the memory."""
        sizes = await self.connection.fetch(*self._query("export_sizes", filter, after, limit))
        total, fits = 0, 0
        for _, bytes_ in sizes:
            total += bytes_
            if fits and total > size:
                break
            fits += 1
        if not fits:
            return []
        rows = await self.connection.fetch(*self._query("export_memories", filter, after, fits, embeddings=embeddings))
        pace, memories = Pace(), []
        for row in rows:
            memories.append(memory_of(row))
            await pace.step()
        return memories

    async def links(self, filter: Filter, *, after: LinkKey | None, limit: int) -> Sequence[Link]:
        """Read a page of links."""
        parameters = Parameters([self.tenant.name])
        condition = compiled(filter, parameters)
        behind = "true"
        if after is not None:
            source = parameters.add(_uuid(after.source_id), "uuid")
            relation = parameters.add(after.relation, "text")
            target = parameters.add(_uuid(after.target_id), "uuid")
            behind = f"(l.source_id, l.relation, l.target_id) > ({source}, {relation}, {target})"
        query = sql.filled(
            "export_links", live=_LIVE, filter=condition, behind=behind, limit=parameters.add(limit, "bigint")
        )
        return [link_of(row) for row in await self.connection.fetch(query, *parameters.values)]

    def _query(
        self, name: str, filter: Filter, after: str, limit: int, *, embeddings: bool = False
    ) -> tuple[object, ...]:
        parameters = Parameters([self.tenant.name])
        conditions = [_LIVE, compiled(filter, parameters)]
        if after:
            conditions.append(f"m.memory_id > {parameters.add(_uuid(after), 'uuid')}")
        parts = {"condition": " AND ".join(conditions), "limit": parameters.add(limit, "bigint")}
        if name == "export_memories":
            vector, model = "NULL::bytea", "''"
            parts["vectors"] = ""
            if embeddings:
                vector = "COALESCE(m.embedding, v.dense)"
                model = "CASE WHEN m.embedding IS NOT NULL THEN m.embedding_model ELSE COALESCE(v.profile, '') END"
                parts["vectors"] = sql.filled("part_export_vectors", profile=parameters.add(self.profile, "text"))
            parts["columns"] = columns("m", embedding=vector).replace("m.embedding_model", model)
        return (sql.filled(name, **parts), *parameters.values)


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise CursorInvalidError from None

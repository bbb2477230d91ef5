"""The changelog on Postgres.

A transaction takes its revision as its last step and under a lock, so revisions become visible in their order: who
has read up to one has missed none before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from memory_server.bulk_ports import Line
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE
from memory_server.stores.postgres.pools import Pools
from memory_server.stores.postgres.records import columns, memory_of
from soma_contract.changes import Change, EndCause, LinkEnded, LinkStored, MemoryEnded, MemoryStored
from soma_contract.errors import RevisionCompactedError
from soma_contract.links import Link, LinkKey
from soma_contract.memory import Memory, View
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class PostgresChanges:
    """See :class:`memory_server.bulk_ports.ChangeFeed`."""

    pools: Pools

    async def revision(self, tenant: Tenant) -> int:
        """Read the last committed revision."""
        async with self.pools.interactive.tenant(tenant) as connection:
            revision: int | None = await connection.fetchval(sql.query("revision"), tenant.name)
        return revision or 0

    async def read(self, tenant: Tenant, after: tuple[int, int], limit: int, view: View) -> list[Line]:
        """Read lines with what they tell of."""
        async with self.pools.interactive.tenant(tenant) as connection:
            rows = await connection.fetch(sql.query("read_changes"), tenant.name, *after, limit)
            # Read after the lines: lines that were compacted before are then known to be missing.
            compacted: int | None = await connection.fetchval(sql.query("compacted"), tenant.name)
            if compacted is not None and compacted > after[0]:
                raise RevisionCompactedError(oldest=str(compacted + 1))
            memories = await self._memories(connection, tenant, rows, view)
        forgotten = {(row["revision"], row["memory_id"]) for row in rows if row["op"] == "forget"}
        return [_line(row, memories, forgotten) for row in rows]

    async def _memories(
        self, connection: asyncpg.Connection, tenant: Tenant, rows: Sequence[asyncpg.Record], view: View
    ) -> dict[tuple[str, int], Memory]:
        wanted = [(row["memory_id"], row["version"]) for row in rows if row["op"] == "put"]
        if not wanted:
            return {}
        query = sql.filled(
            "read_changed_memories",
            live=LIVE,
            columns=columns("m", embedding="m.embedding" if view is View.FULL else "NULL::bytea"),
            old_columns=columns("o", embedding="o.embedding" if view is View.FULL else "NULL::bytea"),
        )
        ids, versions = zip(*wanted, strict=True)
        found = map(memory_of, await connection.fetch(query, tenant.name, list(ids), list(versions)))
        return {(memory.memory_id, memory.version): memory for memory in found}


def _line(row: Any, memories: dict[tuple[str, int], Memory], forgotten: set[tuple[int, Any]]) -> Line:
    namespaces = tuple(dict.fromkeys(name for name in (row["namespace"], row["target_namespace"]) if name))
    return Line(row["revision"], row["ordinal"], row["at"], namespaces, _change(row, memories, forgotten))


def _change(row: Any, memories: dict[tuple[str, int], Memory], forgotten: set[tuple[int, Any]]) -> Change | None:
    memory_id, version = str(row["memory_id"]), row["version"]
    match row["op"]:
        case "put":
            memory = memories.get((memory_id, version))
            if memory is not None:
                return MemoryStored(memory)
            bare = Memory(memory_id=memory_id, namespace=row["namespace"], version=version)
            return MemoryStored(bare, redacted=True)
        case "forget":
            # A tombstone is one version on from what it ends.
            return MemoryEnded(memory_id, row["namespace"], version - 1)
        case "link":
            return _link(row) if row["link_version"] == version else None
        case _:
            ends = (row["revision"], row["memory_id"]), (row["revision"], row["target_id"])
            cause = EndCause.CASCADE if any(end in forgotten for end in ends) else EndCause.FORGOTTEN
            return LinkEnded(LinkKey(memory_id, row["relation"], str(row["target_id"])), cause)


def _link(row: Any) -> LinkStored:
    return LinkStored(
        Link(
            source_id=str(row["memory_id"]),
            target_id=str(row["target_id"]),
            relation=row["relation"],
            strength=row["strength"],
            metadata_json=row["metadata"],
            valid_from=row["valid_from"],
            valid_until=row["valid_until"],
            version=row["version"],
        )
    )

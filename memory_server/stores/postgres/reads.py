"""Reading the truth: by id, key or coordinate, in lists, and older versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from memory_server.ports import LISTING_ORDERS, Listing, MemoryPage
from memory_server.stores.fingerprints import place_key
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE, Parameters, compiled
from memory_server.stores.postgres.records import columns, memory_of
from memory_server.stores.postgres.transactions import Transactions
from soma_contract.errors import FieldViolationError, PageTokenInvalidError
from soma_contract.filters import Filter
from soma_contract.memory import Coordinate, Memory, Target, View
from soma_contract.tenant import Tenant

_TIMES = ("created_at", "updated_at", "occurred_at")
_NUMBERS = ("importance", "relevance")


@dataclass(frozen=True, slots=True)
class Reads:
    """The reading half of the journal."""

    transactions: Transactions

    async def get(
        self, tenant: Tenant, targets: Sequence[Target], *, as_of: datetime | None, view: View
    ) -> list[Memory | None]:
        """Read memories in the order of the targets; absent, deleted or expired ones are None."""
        if not targets:
            return []
        ids = [target.memory_id for target in targets if target.memory_id]
        name: str = "get_by_id"
        arguments: list[Sequence[object]] = [ids]
        if len(ids) < len(targets):
            name, arguments = "get_named", [ids, *_keys_and_places(targets)]
        query = sql.filled(name, columns=_columns(view), live=LIVE, vectors=_vectors(view))
        async with self.transactions.tenant(tenant) as connection:
            memories = [memory_of(row) for row in await connection.fetch(query, tenant.name, *arguments)]
            found = _arranged(targets, memories)
            if as_of is not None:
                return await self._as_of(connection, tenant, found, as_of, view)
        return found

    async def _as_of(
        self,
        connection: asyncpg.Connection,
        tenant: Tenant,
        found: list[Memory | None],
        as_of: datetime,
        view: View,
    ) -> list[Memory | None]:
        newer = {
            memory.memory_id
            for memory in found
            if memory is not None and memory.updated_at is not None and memory.updated_at > as_of
        }
        if not newer:
            return found
        embedding = "m.embedding" if view is View.FULL else "NULL::bytea"
        query = sql.filled("get_versions_as_of", columns=columns("m", embedding=embedding))
        rows = await connection.fetch(query, tenant.name, sorted(newer), as_of)
        older = {memory.memory_id: memory for memory in map(memory_of, rows)}
        return [
            older.get(memory.memory_id) if memory is not None and memory.memory_id in newer else memory
            for memory in found
        ]

    async def list_memories(self, tenant: Tenant, listing: Listing) -> MemoryPage:
        """Read one page; see :class:`memory_server.ports.Journal`."""
        if listing.order not in LISTING_ORDERS:
            raise FieldViolationError.at("order", f"must be one of {', '.join(LISTING_ORDERS)}")
        parameters = Parameters([tenant.name])
        conditions = [compiled(listing.filter, parameters)]
        expression = _order_expression(listing.order)
        if listing.after:
            conditions.append(_after(listing, expression, parameters))
        direction = "DESC" if listing.descending else "ASC"
        order = f"{expression} {direction}, " if listing.order != "memory_id" else ""
        query = sql.filled(
            "list_memories",
            columns=_columns(listing.view),
            vectors=_vectors(listing.view),
            live=LIVE,
            filter=" AND ".join(conditions),
            order=f"{order}m.memory_id {direction}",
            limit=parameters.add(listing.limit + 1, "bigint"),
        )
        async with self.transactions.tenant(tenant) as connection:
            rows = await connection.fetch(query, *parameters.values)
        memories = tuple(memory_of(row) for row in rows[: listing.limit])
        if len(rows) <= listing.limit:
            return MemoryPage(memories)
        return MemoryPage(memories, listing.end(memories[-1]))

    async def history(self, tenant: Tenant, memory_id: str, *, before_version: int | None, limit: int) -> list[Memory]:
        """Read the kept versions of a living memory, newest first."""
        query = sql.filled("history", columns=columns("m"), live=LIVE)
        async with self.transactions.tenant(tenant) as connection:
            rows = await connection.fetch(query, tenant.name, memory_id, before_version, limit)
        return [memory_of(row) for row in rows]

    async def matching_ids(self, tenant: Tenant, filter: Filter, limit: int) -> list[str]:
        """Read the ids of up to ``limit`` live memories that match, in id order."""
        parameters = Parameters([tenant.name])
        condition = compiled(filter, parameters)
        query = sql.filled("matching_ids", live=LIVE, filter=condition, limit=parameters.add(limit, "bigint"))
        async with self.transactions.tenant(tenant) as connection:
            return [str(row[0]) for row in await connection.fetch(query, *parameters.values)]

    async def revision(self, tenant: Tenant) -> int:
        """Read the tenant's last committed revision; 0 for none."""
        async with self.transactions.tenant(tenant) as connection:
            revision: int | None = await connection.fetchval(sql.query("revision"), tenant.name)
        return revision or 0


def _columns(view: View) -> str:
    return columns("m", embedding="COALESCE(m.embedding, v.dense)" if view is View.FULL else "NULL::bytea")


def _vectors(view: View) -> str:
    if view is not View.FULL:
        return ""
    # A tenant has one profile but while it is re-embedded, when either vector is right.
    return (
        "LEFT JOIN LATERAL (SELECT e.dense FROM memory_vectors e WHERE e.tenant = m.tenant"
        " AND e.memory_id = m.memory_id AND e.version = m.version LIMIT 1) AS v ON true"
    )


def _keys_and_places(targets: Sequence[Target]) -> list[Sequence[object]]:
    keys = [(target.namespace, target.key) for target in targets if target.key and not target.memory_id]
    places = [
        place_key(target.coordinate)
        for target in targets
        if target.coordinate is not None and not target.key and not target.memory_id
    ]
    return [
        [namespace for namespace, _ in keys],
        [key for _, key in keys],
        places,
    ]


def _arranged(targets: Sequence[Target], memories: Sequence[Memory]) -> list[Memory | None]:
    """Put memories in the order of the targets that name them."""
    by_id = {memory.memory_id: memory for memory in memories}
    by_key = {(memory.namespace, memory.key): memory for memory in memories if memory.key}
    by_place: dict[tuple[str, Coordinate | None], Memory] = {}
    for memory in sorted(memories, key=lambda memory: memory.memory_id):
        by_place.setdefault((memory.namespace, memory.coordinate), memory)
    found: list[Memory | None] = []
    for target in targets:
        if target.memory_id:
            found.append(by_id.get(target.memory_id))
        elif target.key:
            found.append(by_key.get((target.namespace, target.key)))
        else:
            found.append(by_place.get((target.namespace, target.coordinate)))
    return found


def _order_expression(order: str) -> str:
    """What rows are ordered by; a missing value counts as the lowest."""
    if order in _NUMBERS:
        return f"COALESCE(m.{order}, '-Infinity'::float8)"
    if order == "occurred_at":
        return "COALESCE(m.occurred_at, '-infinity'::timestamptz)"
    return f"m.{order}"


def _after(listing: Listing, expression: str, parameters: Parameters) -> str:
    """The condition for rows behind the end of the last page."""
    comparison = "<" if listing.descending else ">"
    try:
        if listing.order == "memory_id":
            (memory_id,) = listing.after
            return f"m.memory_id {comparison} {parameters.add(str(UUID(memory_id)), 'uuid')}"
        value, memory_id = listing.after
        last = f"{_last_value(listing.order, value, parameters)}, {parameters.add(str(UUID(memory_id)), 'uuid')}"
    except ValueError:
        raise PageTokenInvalidError from None
    return f"({expression}, m.memory_id) {comparison} ({last})"


def _last_value(order: str, value: str, parameters: Parameters) -> str:
    if order in _NUMBERS:
        return parameters.add(float(value) if value else float("-inf"), "float8")
    if order in _TIMES:
        return parameters.add(datetime.fromisoformat(value), "timestamptz") if value else "'-infinity'::timestamptz"
    return parameters.add(value, "text")

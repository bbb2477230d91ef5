"""One transaction for the commands of many calls of one tenant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from typing import Any

import asyncpg

from memory_server.ports import Analyse
from memory_server.stores.calls import Call, Decided, Outcome, decide, spoken
from memory_server.stores.deciding import Scene
from memory_server.stores.fingerprints import place_key, request_day
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.changelog import changelog_lines
from memory_server.stores.postgres.records import (
    columns,
    content_values,
    header_of,
    memory_of,
    row_values,
)
from memory_server.stores.postgres.repetitions import record_values, repetitions
from memory_server.stores.postgres.transactions import Transactions
from memory_server.stores.requests import Request, moved_keys
from memory_server.stores.standings import Standing
from rpckit.failpoints import failpoint
from soma_contract.tenant import Tenant

_ROW_COLUMNS = 37
_ENTRY_COLUMNS = 8
_RECORD_COLUMNS = 13


class LostRaceError(Exception):
    """Another server wrote the same memory, key or request id first; nothing was written here."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Writes batches.  Every batch is a fixed number of statements, however many commands it holds."""

    transactions: Transactions
    analyse: Analyse
    versions_kept: int = 20

    async def commit(
        self,
        tenant: Tenant,
        calls: Sequence[Call],
        *,
        deadline_s: float | None = None,
        lock_s: float | None = None,
        cautious: bool = False,
    ) -> list[Outcome]:
        """Write all calls in one transaction and return their outcomes in order.

        ``cautious`` looks up request ids before deciding; without it a repetition shows when its record
        meets the first one.  Raises LostRaceError when somebody else was faster.
        """
        requests = [request for call in calls for request in call.requests]
        async with self.transactions.tenant(tenant, deadline_s=deadline_s, lock_s=lock_s) as connection:
            now, revision, rows = await self._lock(connection, tenant, requests)
            failpoint("journal.locked")
            rows = await self._completed(connection, tenant, now, rows, requests)
            known = await self._find(connection, tenant, requests) if cautious else {}
            decided = decide(Scene.of(now, rows), calls, repetitions(known))
            if decided.unsure and not cautious:
                known = await self._find(connection, tenant, requests)
                if known:
                    decided = decide(Scene.of(now, rows), calls, repetitions(known))
            before = await self._write(connection, tenant, calls, decided, rows, revision)
            failpoint("journal.written")
        failpoint("journal.committed")
        return decided.answers(before)

    async def _lock(
        self, connection: asyncpg.Connection, tenant: Tenant, requests: Sequence[Request]
    ) -> tuple[datetime, int, list[Standing]]:
        ids = sorted({memory_id for request in requests for memory_id in request.ids})
        keys = [key for request in requests for key in request.keys]
        places = [place for request in requests for place in request.places]
        if keys or places:
            found = await connection.fetch(
                sql.query("lock_named_rows"),
                tenant.name,
                ids,
                [namespace for namespace, _ in keys],
                [key for _, key in keys],
                [place_key(coordinate) for _, coordinate in places],
            )
        else:
            found = await connection.fetch(sql.query("lock_rows"), tenant.name, ids)
        rows = {row[2]: row for row in found if row[2] is not None}
        standings = [header_of(tuple(row)[2:]) for row in rows.values()]
        if moved := moved_keys(requests, (row.memory for row in standings)) - set(keys):
            holders = await connection.fetch(
                sql.query("lock_named_rows"),
                tenant.name,
                [],
                [namespace for namespace, _ in moved],
                [key for _, key in moved],
                [],
            )
            found += holders
            new = [row for row in holders if row[2] is not None and row[2] not in rows]
            standings += [header_of(tuple(row)[2:]) for row in new]
        # Each row was stamped after its lock was had, so the latest stamp is later than all writes seen.
        now = max(row[0] for row in found)
        return now, found[0][1], standings

    async def _completed(
        self,
        connection: asyncpg.Connection,
        tenant: Tenant,
        now: datetime,
        rows: list[Standing],
        requests: Sequence[Request],
    ) -> list[Standing]:
        """Read the content of those rows that an update merges into, or a dropped write answers with."""
        scene = Scene.of(now, rows)
        needed = {scene.needs_whole(request) for request in requests} - {""}
        if not needed:
            return rows
        query = sql.filled("read_locked_rows", columns=columns("m", embedding="m.embedding"))
        whole = {str(row[0]): memory_of(row) for row in await connection.fetch(query, tenant.name, sorted(needed))}
        return [
            replace(row, memory=whole[row.memory.memory_id], whole=True) if row.memory.memory_id in whole else row
            for row in rows
        ]

    async def _find(
        self, connection: asyncpg.Connection, tenant: Tenant, requests: Sequence[Request]
    ) -> dict[str, asyncpg.Record]:
        days: dict[date, list[str]] = defaultdict(list)
        for request in requests:
            if request.command.request_id:
                days[request_day(request.command.request_id)].append(request.command.request_id)
        found = {}
        for day, request_ids in days.items():
            query = sql.filled("find_requests", day=day.isoformat())
            for row in await connection.fetch(query, tenant.name, request_ids):
                found[row["request_id"]] = row
        return found

    async def _write(
        self,
        connection: asyncpg.Connection,
        tenant: Tenant,
        calls: Sequence[Call],
        decided: Decided,
        rows: Sequence[Standing],
        revision: int,
    ) -> int:
        """Write what the scene collected and return the revision before it."""
        scene = decided.scene
        records = _columns([record_values(request, verdict) for request, verdict in decided.records], _RECORD_COLUMNS)
        if not scene.changed:
            if decided.records:
                query = sql.query("record_requests")
                kept = await connection.fetchval(query, tenant.name, scene.now, revision, *records)
                if kept != len(decided.records):
                    raise LostRaceError
            return revision
        links: Sequence[Any] = ()
        if scene.ended:
            links = await connection.fetch(sql.query("bury_rows"), tenant.name, sorted(scene.ended))
        if passed := [row for row in scene.passed if row.memory.memory_id in scene.changed]:
            values = _columns([content_values(row.memory) for row in passed], 26)
            await connection.execute(sql.query("keep_passed_versions"), tenant.name, *values)
        rows_are_new = not any(row.memory.memory_id in scene.changed for row in rows)
        row = await connection.fetchrow(
            _write_query(fresh=rows_are_new),
            tenant.name,
            scene.now,
            scene.step,
            *_columns(self._changed(tenant, calls, scene, rows), _ROW_COLUMNS),
            *_columns(changelog_lines(scene.entries, links), _ENTRY_COLUMNS),
            *records,
        )
        if row["written"] != len(scene.changed) or row["answered"] != len(decided.records):
            raise LostRaceError
        await self._trim(connection, tenant, scene)
        before: int = row["before"]
        return before

    async def _trim(self, connection: asyncpg.Connection, tenant: Tenant, scene: Scene) -> None:
        """Delete the versions beyond those that are kept; most memories never have so many."""
        ends = [
            (tenant.name, memory_id, row.memory.version - self.versions_kept)
            for memory_id, row in scene.changed.items()
            if row.memory.version > self.versions_kept
        ]
        if ends:
            await connection.executemany(sql.query("trim_versions"), ends)

    def _changed(
        self, tenant: Tenant, calls: Sequence[Call], scene: Scene, rows: Sequence[Standing]
    ) -> list[list[object]]:
        before = {row.memory.memory_id: row for row in rows}
        known = {words: terms for call in calls for words, terms in call.terms.items()}
        values = []
        for memory_id in _givers_first(scene.changed, before):
            row = scene.changed[memory_id]
            terms = None if row.deleted else known.get(spoken(row.memory)) or self.analyse(row.memory)
            version = before[memory_id].memory.version if memory_id in before else 0
            values.append(row_values(tenant.name, row, terms, version, ended=memory_id in scene.ended))
        return values


@cache
def _write_query(*, fresh: bool) -> str:
    """The statement that writes a batch; shorter when none of its rows was there before."""
    if fresh:
        return sql.filled("write_rows", replacing="", old="", recounted="", replaced="0", written="0")
    old = sql.query("part_old")
    return sql.filled(
        "write_rows",
        replacing=sql.filled("part_replacing", old=old),
        old=old,
        recounted=sql.query("part_recounted"),
        replaced=sql.query("part_replaced"),
        written="(SELECT count(*) FROM replaced)",
    )


def _givers_first(changed: dict[str, Standing], before: dict[str, Standing]) -> list[str]:
    """Order rows by id, but one that takes a key behind the one that gives it up."""
    ordered = sorted(changed)
    held = {
        (row.memory.namespace, row.memory.key): memory_id
        for memory_id, row in before.items()
        if row.memory.key and not row.deleted and memory_id in changed
    }
    takers = {}
    for memory_id in ordered:
        memory = changed[memory_id].memory
        giver = held.get((memory.namespace, memory.key), memory_id)
        if giver != memory_id:
            takers[memory_id] = giver
    if not takers:
        return ordered
    done: dict[str, None] = {}
    for memory_id in ordered:
        chain = [memory_id]
        while chain[-1] in takers and takers[chain[-1]] not in chain:
            chain.append(takers[chain[-1]])
        done |= dict.fromkeys(reversed(chain))
    return list(done)


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[Sequence[object]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width

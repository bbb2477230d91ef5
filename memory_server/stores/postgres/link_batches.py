"""One transaction for the link commands of many calls of one tenant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations

import asyncpg

from memory_server.stores.fingerprints import request_day
from memory_server.stores.link_deciding import (
    End,
    LinkEntry,
    LinkScene,
    LinkVerdict,
    targets_of,
)
from memory_server.stores.link_requests import dump_answer, link_request_hash, load_answer
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.batches import LostRaceError
from memory_server.stores.postgres.link_rows import named, standing_of, standing_values
from memory_server.stores.postgres.transactions import Transactions
from soma_contract.errors import RequestIdReusedError, SomaError
from soma_contract.links import (
    REFERENCES,
    USED_IN_PLAN,
    LinkCommand,
    LinkKey,
    LinkWritten,
    MakeLink,
    Refer,
    RemoveLink,
    UseTogether,
)
from soma_contract.memory import Origin, Target
from soma_contract.tenant import Tenant

_LINK_COLUMNS = 13
_ENTRY_COLUMNS = 8
_RECORD_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A command with what can be computed before any row is read."""

    command: LinkCommand
    origin: Origin | None
    fingerprint: bytes

    @classmethod
    def of(cls, command: LinkCommand, origin: Origin | None) -> LinkRequest:
        """Prepare a command."""
        return cls(command, origin, link_request_hash(command) if command.request_id else b"")


@dataclass(slots=True)
class _Decided:
    scene: LinkScene
    answers: list[LinkVerdict | LinkWritten | SomaError]
    records: list[tuple[LinkRequest, LinkVerdict]]


@dataclass(frozen=True, slots=True)
class LinkBatches:
    """Writes batches of links.  Every batch is a fixed number of statements, however many commands it holds."""

    transactions: Transactions

    async def commit(
        self,
        tenant: Tenant,
        requests: Sequence[LinkRequest],
        *,
        deadline_s: float | None = None,
        lock_s: float | None = None,
    ) -> list[LinkWritten | SomaError]:
        """Write all requests in one transaction of their own; raises LostRaceError when somebody else was faster."""
        async with self.transactions.tenant(tenant, deadline_s=deadline_s, lock_s=lock_s) as connection:
            return await write_links(connection, tenant, requests)

    async def answered(self, tenant: Tenant, request_ids: Sequence[str]) -> set[str]:
        """Return those request ids that were answered before."""
        async with self.transactions.tenant(tenant) as connection:
            return set(await _find(connection, tenant, request_ids))


async def write_links(
    connection: asyncpg.Connection, tenant: Tenant, requests: Sequence[LinkRequest]
) -> list[LinkWritten | SomaError]:
    """Write requests within the tenant's transaction on ``connection``; their answers are true once it commits.

    Raises LostRaceError, after which the transaction must be rolled back.
    """
    commands = [request.command for request in requests]
    found = await connection.fetch(sql.query("lock_ends"), tenant.name, *named(targets_of(commands)))
    # Each row was stamped after its lock was had, so the latest stamp is later than all writes seen.
    now, revision = max(row[0] for row in found), found[0][1]
    ends = [End(str(row[2]), row[3], row[4], tuple(row[5])) for row in found if row[2] is not None and row[6]]
    known = await _find(connection, tenant, [command.request_id for command in commands if command.request_id])
    scene = LinkScene.of(now, ends, ())
    rows = await connection.fetch(sql.query("read_standing_links"), tenant.name, *_wanted(scene, commands))
    scene = LinkScene.of(now, ends, {row[:3]: standing_of(row) for row in map(tuple, rows)}.values())
    decided = _decide(scene, requests, known)
    before = await _write(connection, tenant, decided, revision)
    return [one.written(before) if isinstance(one, LinkVerdict) else one for one in decided.answers]


async def _find(
    connection: asyncpg.Connection, tenant: Tenant, request_ids: Sequence[str]
) -> dict[str, asyncpg.Record]:
    days: dict[date, list[str]] = defaultdict(list)
    for request_id in request_ids:
        days[request_day(request_id)].append(request_id)
    found = {}
    for day, ids in days.items():
        query = sql.filled("find_requests", day=day.isoformat())
        for row in await connection.fetch(query, tenant.name, ids):
            found[row["request_id"]] = row
    return found


def _wanted(scene: LinkScene, commands: Sequence[LinkCommand]) -> list[Sequence[object]]:
    """Which links the commands are about: keys, memories with co_recalled links, memories with payloads."""
    keys: set[LinkKey] = set()
    used: set[str] = set()
    payloads: set[str] = set()

    def add(source: Target, relation: str, target: Target) -> None:
        start, end = scene.end(source), scene.end(target)
        if start is not None and end is not None:
            keys.add(LinkKey(start.memory_id, relation, end.memory_id))

    for command in commands:
        match command:
            case MakeLink() | RemoveLink():
                add(command.source, command.relation, command.target)
            case UseTogether():
                ids = sorted(set(command.memory_ids) & scene.ends.keys())
                used.update(ids)
                if command.plan_id:
                    keys.update(LinkKey(source, USED_IN_PLAN, target) for source, target in combinations(ids, 2))
            case Refer():
                payloads.add(command.memory_id)
                for target in command.targets:
                    add(Target(memory_id=command.memory_id), REFERENCES, target)
    ordered = sorted(keys)
    return [
        [key.source_id for key in ordered],
        [key.relation for key in ordered],
        [key.target_id for key in ordered],
        sorted(used),
        sorted(payloads),
    ]


def _decide(scene: LinkScene, requests: Sequence[LinkRequest], known: dict[str, asyncpg.Record]) -> _Decided:
    decided = _Decided(scene, [], [])
    here: dict[str, tuple[LinkRequest, LinkVerdict]] = {}
    for request in requests:
        request_id = request.command.request_id
        first: LinkVerdict | LinkWritten | SomaError | None = None
        if request_id in known:
            first = _repeated(request, known[request_id])
        elif request_id and request_id in here:
            earlier, verdict = here[request_id]
            same = earlier.fingerprint == request.fingerprint
            first = verdict if same else RequestIdReusedError(request_id=request_id)
        answer = first or scene.decide(request.command, request.origin)
        if first is None and request_id and isinstance(answer, LinkVerdict):
            here[request_id] = request, answer
        decided.answers.append(answer)
    decided.records = list(here.values())
    return decided


def _repeated(request: LinkRequest, record: asyncpg.Record) -> LinkWritten | SomaError:
    if record["request_hash"] != request.fingerprint:
        return RequestIdReusedError(request_id=request.command.request_id)
    return load_answer(
        record["snapshot"], revision=record["revision"], created=record["created"], changed=record["changed"]
    )


async def _write(connection: asyncpg.Connection, tenant: Tenant, decided: _Decided, revision: int) -> int:
    """Write what the scene collected and return the revision before it."""
    scene = decided.scene
    records = _columns([_record(request, verdict) for request, verdict in decided.records], _RECORD_COLUMNS)
    if not scene.step:
        if decided.records:
            query = sql.query("record_link_requests")
            if await connection.fetchval(query, tenant.name, scene.now, revision, *records) != len(decided.records):
                raise LostRaceError
        return revision
    kept = [standing_values(standing) for _, standing in sorted(scene.changed.items()) if standing is not None]
    gone = [(key.source_id, key.relation, key.target_id) for key, one in sorted(scene.changed.items()) if one is None]
    row = await connection.fetchrow(
        sql.query("write_links"),
        tenant.name,
        scene.now,
        scene.step,
        *_columns(kept, _LINK_COLUMNS),
        *_columns(gone, 3),
        *_columns(_changelog(scene.entries), _ENTRY_COLUMNS),
        *records,
    )
    if row["answered"] != len(decided.records):
        raise LostRaceError
    before: int = row["before"]
    return before


def _changelog(entries: Sequence[LinkEntry]) -> list[list[object]]:
    ordinals: dict[int, int] = defaultdict(int)
    lines: list[list[object]] = []
    for entry in entries:
        key, ordinal = entry.key, ordinals[entry.step]
        ordinals[entry.step] += 1
        lines.append(
            [entry.step, ordinal, entry.op, key.source_id, entry.namespace, entry.version, key.target_id, key.relation]
        )
    return lines


def _record(request: LinkRequest, verdict: LinkVerdict) -> list[object]:
    request_id = request.command.request_id
    return [
        request_day(request_id),
        request_id,
        request.fingerprint,
        verdict.step,
        verdict.link.version if verdict.link is not None else 0,
        verdict.created,
        verdict.changed,
        dump_answer(verdict),
    ]


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[Sequence[object]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width

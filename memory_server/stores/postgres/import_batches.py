"""One transaction of an import: records, links, changelog, index jobs, refusals and the job's offset together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache

import asyncpg

from memory_server.bulk_ports import Prepared, PreparedMemory
from memory_server.domain.imports import Committed, Lease
from memory_server.pacing import Pace
from memory_server.stores.import_deciding import ImportScene, Taken, Touched, surviving
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.batches import LostRaceError
from memory_server.stores.postgres.import_rows import (
    JOB_COLUMNS,
    STAGED_COLUMNS,
    job_of,
    link_values,
    refusal_values,
    staged_values,
    transposed,
)
from memory_server.stores.postgres.link_rows import link_of
from memory_server.stores.postgres.records import content_values, header_of
from memory_server.stores.postgres.transactions import Transactions
from memory_server.stores.standings import Standing
from soma_contract.errors import ImportLeaseLostError, ImportNotActiveError, ImportNotFoundError, SomaError
from soma_contract.records import ImportJob, ImportState, Refused
from soma_contract.tenant import Tenant

LEASE_HELD = timedelta(seconds=60)
COPIED_AT_ONCE = 128
"""Rows that are encoded without a pause, so that calls answered by the same loop wait about a millisecond."""
_LINK_COLUMNS = 10
_LINE_COLUMNS = 7


@dataclass(slots=True)
class _Tally:
    """What became of the records of a commit."""

    offset: int
    stored: int = 0
    memories: int = 0
    skipped: int = 0
    refused: list[Refused] = field(default_factory=list)
    state: ImportState = ImportState.ACTIVE


@dataclass(frozen=True, slots=True)
class ImportBatches:
    """Writes the records of imports on connections that no interactive call needs."""

    transactions: Transactions
    profile: str
    versions_kept: int = 20

    async def commit(
        self, tenant: Tenant, lease: Lease, offset: int, records: Sequence[Prepared], *, lock_s: float
    ) -> Committed:
        """Write records in one transaction; see :class:`memory_server.bulk_ports.ImportStore`.

        Raises LostRaceError when somebody else wrote one of the same memories or keys first.
        """
        async with self.transactions.tenant(tenant, lock_s=lock_s) as connection:
            job = await self._locked(connection, tenant, lease)
            scene, rows = await self._scene(connection, tenant, job, records)
            tally = await _taken(scene, job, offset, records)
            revision = None
            if job.options.dry_run:
                await _keep_seen(connection, tenant, job, scene)
            elif scene.changed or scene.made_links:
                revision = await self._write(connection, tenant, job, scene, rows)
            row = await connection.fetchrow(
                sql.filled("advance_import", columns=JOB_COLUMNS),
                tenant.name,
                job.import_id,
                tally.offset,
                tally.stored,
                tally.memories,
                tally.skipped,
                len(tally.refused),
                revision,
                tally.state.value,
                LEASE_HELD,
                *transposed([refusal_values(refused) for refused in tally.refused], 5),
            )
        return Committed(job_of(row), tuple(tally.refused))

    async def _locked(self, connection: asyncpg.Connection, tenant: Tenant, lease: Lease) -> ImportJob:
        row = await connection.fetchrow(sql.filled("lock_import", columns=JOB_COLUMNS), tenant.name, lease.import_id)
        return checked(row, lease)

    async def _scene(
        self, connection: asyncpg.Connection, tenant: Tenant, job: ImportJob, records: Sequence[Prepared]
    ) -> tuple[ImportScene, dict[str, Standing]]:
        touched = Touched.by(records)
        named = [list(touched.ids), *transposed(touched.keys, 2)]
        found = await connection.fetch(sql.query("lock_named_rows"), tenant.name, *named, [])
        now: datetime = max(row[0] for row in found)
        rows = [header_of(tuple(row)[2:]) for row in found if row[2] is not None]
        if job.options.dry_run:
            seen = await connection.fetch(sql.query("read_seen"), tenant.name, job.import_id, *named)
            # What it has seen stands in for what is stored.
            rows += [header_of(tuple(row)) for row in seen]
        scene = ImportScene.of_import(now, rows, job.options.on_conflict)
        if touched.links:
            sources, relations, targets = zip(*touched.links, strict=True)
            links = await connection.fetch(
                sql.query("read_import_links"), tenant.name, list(sources), list(relations), list(targets)
            )
            scene.links = {link.key: link for link in map(link_of, links)}
        return scene, {row.memory.memory_id: row for row in rows}

    async def _write(
        self,
        connection: asyncpg.Connection,
        tenant: Tenant,
        job: ImportJob,
        scene: ImportScene,
        rows: dict[str, Standing],
    ) -> int:
        """Write what the scene collected and return its revision."""
        gone: Sequence[asyncpg.Record] = ()
        if scene.ended:
            gone = await connection.fetch(sql.query("bury_rows"), tenant.name, sorted(scene.ended))
        if passed := surviving(scene.passed, scene.changed):
            values = transposed([content_values(row.memory) for row in passed], 26)
            await connection.execute(sql.query("keep_passed_versions"), tenant.name, *values)
        await self._copy(connection, tenant, scene, rows)
        if any(record.admitted.made is not None for record in scene.brought.values()):
            await connection.execute(sql.query("put_made_vectors"), tenant.name, self.profile)
        row = await connection.fetchrow(
            _rows_query(fresh=not any(memory_id in rows for memory_id in scene.changed)),
            tenant.name,
            scene.now,
            job.import_id,
            *transposed([link_values(link) for link in scene.made_links.values()], _LINK_COLUMNS),
            *transposed(_lines(scene, gone), _LINE_COLUMNS),
        )
        if row["written"] != len(scene.changed):
            raise LostRaceError
        if ends := [
            (tenant.name, memory_id, changed.memory.version - self.versions_kept)
            for memory_id, changed in scene.changed.items()
            if memory_id in rows and changed.memory.version > self.versions_kept
        ]:
            await connection.executemany(sql.query("trim_versions"), ends)
        revision: int = row["revision"]
        return revision

    async def _copy(
        self, connection: asyncpg.Connection, tenant: Tenant, scene: ImportScene, rows: dict[str, Standing]
    ) -> None:
        # Also for links alone: the statement that writes names it.
        await connection.execute(sql.query("make_import_rows"))
        if not scene.changed:
            return
        pace = Pace()
        staged: list[tuple[object, ...]] = []
        for ordinal, memory_id in enumerate(_givers_first(scene, rows)):
            before = rows[memory_id].memory.version if memory_id in rows else 0
            changed = scene.changed[memory_id]
            record = None if changed.deleted else scene.brought[memory_id]
            staged.append(
                staged_values(
                    tenant.name, changed, record, before=before, ended=memory_id in scene.ended, ordinal=ordinal
                )
            )
            await pace.step()
        for start in range(0, len(staged), COPIED_AT_ONCE):
            await connection.copy_records_to_table(
                "import_rows", records=staged[start : start + COPIED_AT_ONCE], columns=STAGED_COLUMNS
            )


def checked(row: asyncpg.Record | None, lease: Lease) -> ImportJob:
    """The job of a row, if this lease still holds it."""
    if row is None:
        raise ImportNotFoundError(import_id=lease.import_id)
    job = job_of(row)
    if job.state is not ImportState.ACTIVE:
        raise ImportNotActiveError(import_id=job.import_id, state=job.state.value)
    if row["fencing"] != lease.fencing:
        raise ImportLeaseLostError(import_id=job.import_id)
    return job


async def _taken(scene: ImportScene, job: ImportJob, offset: int, records: Sequence[Prepared]) -> _Tally:
    """Take records in order, until more are refused than may be."""
    tally, pace = _Tally(offset), Pace()
    for record in records:
        taken = record if isinstance(record, SomaError) else scene.take(record)
        if isinstance(taken, SomaError):
            tally.refused.append(Refused(tally.offset, taken))
        elif taken is Taken.STORED:
            tally.stored += 1
            tally.memories += isinstance(record, PreparedMemory)
        else:
            tally.skipped += 1
        tally.offset += 1
        most = job.options.max_refused
        if most is not None and job.refused + len(tally.refused) > most:
            tally.state = ImportState.FAILED
            break
        await pace.step()
    return tally


async def _keep_seen(connection: asyncpg.Connection, tenant: Tenant, job: ImportJob, scene: ImportScene) -> None:
    rows = [
        (
            row.memory.memory_id,
            row.memory.namespace,
            row.memory.key,
            "{" + ",".join(map(repr, row.memory.coordinate or ())) + "}",
            row.content,
            row.memory.version,
            row.memory.expires_at,
        )
        for row in scene.changed.values()
        if not row.deleted
    ]
    if rows:
        await connection.execute(sql.query("keep_seen"), tenant.name, job.import_id, *transposed(rows, 7))


@cache
def _rows_query(*, fresh: bool) -> str:
    """The statement that writes rows; shorter when none of them was there before."""
    if fresh:
        return sql.filled("import_rows", replacing="", old="", recounted="", replaced="0", written="0")
    old = sql.query("part_old")
    return sql.filled(
        "import_rows",
        replacing=sql.filled("part_replacing", old=old),
        old=old,
        recounted=sql.query("part_recounted"),
        replaced=sql.query("part_replaced"),
        written="(SELECT count(*) FROM replaced)",
    )


def _givers_first(scene: ImportScene, rows: dict[str, Standing]) -> list[str]:
    """Order rows by id, but those that give up a key before those that take it."""
    held = {
        (row.memory.namespace, row.memory.key): memory_id
        for memory_id, row in rows.items()
        if row.memory.key and not row.deleted and memory_id in scene.changed
    }
    done: dict[str, None] = {}
    for memory_id in sorted(scene.changed):
        chain = [memory_id]
        while True:
            memory = scene.changed[chain[-1]].memory
            giver = held.get((memory.namespace, memory.key), "") if memory.key else ""
            if not giver or giver in chain or giver in done:
                break
            chain.append(giver)
        done |= dict.fromkeys(reversed(chain))
    return list(done)


def _lines(scene: ImportScene, gone: Sequence[asyncpg.Record]) -> list[tuple[object, ...]]:
    """The lines of the changelog that are not those of import_rows: links that went with an end, links made."""
    lines: list[tuple[object, ...]] = []
    ordinal = len(scene.changed)
    namespaces = {memory_id: row.memory.namespace for memory_id, row in scene.standings.items()}
    for link in gone:
        source, target = str(link["source_id"]), str(link["target_id"])
        namespace = namespaces.get(source) or namespaces[target]
        lines.append((ordinal, "unlink", source, namespace, link["version"] + 1, target, link["relation"]))
        ordinal += 1
    for made in scene.made_links.values():
        namespace = namespaces[made.source_id]
        lines.append((ordinal, "link", made.source_id, namespace, made.version, made.target_id, made.relation))
        ordinal += 1
    return lines

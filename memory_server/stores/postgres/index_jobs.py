"""Tasks of the index on Postgres: who is at work on what, and how far it is."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

import asyncpg

from memory_server.domain.index_tasks import Differences, IndexTask, PoisonedRow, Scope, TaskKind, TaskState
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.pools import Pools


@dataclass(frozen=True, slots=True)
class PostgresIndexTasks:
    """See :class:`memory_server.core.index_jobs.IndexTasks`."""

    pools: Pools

    async def open(self, scope: Scope) -> IndexTask:
        """Enter a task; while one of the same scope is open, that one is returned."""
        named = scope.kind.value, scope.tenant_name, scope.collection, scope.profile
        async with self.pools.bulk.worker() as connection:
            while True:
                row = await connection.fetchrow(
                    sql.query("open_task"),
                    str(uuid.uuid4()),
                    *named,
                    scope.dimension,
                    scope.repair,
                    scope.poisoned_only,
                    False,
                ) or await connection.fetchrow(sql.query("find_open_task"), *named, scope.repair, scope.poisoned_only)
                # None when the open one ended between the two statements: then there is room.
                if row is not None:
                    return _task(row)

    async def schedule(self, interval_s: float) -> bool:
        """Enter a comparison of everything if the last began so long ago; return whether it was entered."""
        async with self.pools.bulk.worker() as connection:
            row = await connection.fetchrow(sql.query("schedule_reconcile"), str(uuid.uuid4()), interval_s)
        return row is not None

    async def claim(self, lease_s: float) -> IndexTask | None:
        """Take the oldest task that nobody is at work on."""
        async with self.pools.bulk.worker() as connection:
            await connection.execute(sql.query("lock_claims"))
            row = await connection.fetchrow(sql.query("claim_task"), str(uuid.uuid4()), lease_s)
        return _task(row) if row is not None else None

    async def save(self, task: IndexTask, lease_s: float) -> bool:
        """Keep how far a task is and prolong its lease; False when another server has taken it over."""
        found = task.differences
        async with self.pools.bulk.worker() as connection:
            row = await connection.fetchrow(
                sql.query("save_task"),
                task.task_id,
                task.lease,
                lease_s,
                json.dumps(dict(task.progress)),
                task.done,
                task.total,
                found.compared,
                found.missing,
                found.outdated,
                found.orphaned,
                found.repaired,
                task.state.value,
                task.reason,
                task.message[:256],
            )
        return row is not None

    async def get(self, task_id: str) -> IndexTask | None:
        """Read a task."""
        return await self._one("get_task", task_id)

    async def last_reconcile(self) -> IndexTask | None:
        """Read the last comparison that ended well."""
        return await self._one("last_reconcile")

    async def running(self) -> str:
        """Read the id of the task that is at work; empty for none."""
        async with self.pools.bulk.worker() as connection:
            return str(await connection.fetchval(sql.query("running_task")) or "")

    async def page(
        self, tenant_name: str, state: TaskState | None, *, after: IndexTask | None, limit: int
    ) -> list[IndexTask]:
        """Read a page of tasks, newest first, behind ``after``."""
        where = (after.created_at, after.task_id) if after is not None else (None, None)
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(
                sql.query("list_tasks"), tenant_name, state.value if state else "", *where, limit
            )
        return [_task(row) for row in rows]

    async def poisoned(self, tenant_name: str, *, after: PoisonedRow | None, limit: int) -> list[PoisonedRow]:
        """Read a page of memories that cannot be indexed, oldest first, behind ``after``."""
        where = (after.queued_at, after.tenant_name, after.memory_id) if after is not None else (None, None, None)
        async with self.pools.bulk.worker() as connection:
            rows = await connection.fetch(sql.query("list_poisoned"), tenant_name, *where, limit)
        return [
            PoisonedRow(
                row["tenant"],
                str(row["memory_id"]),
                row["version"],
                row["attempts"],
                row["reason"],
                row["due_at"],
                row["queued_at"],
            )
            for row in rows
        ]

    async def retry_poisoned(self, tenant_name: str) -> int:
        """Have what is poisoned tried again, of a tenant or of all (empty), and return how many that are."""
        async with self.pools.bulk.worker() as connection:
            return _count(await connection.execute(sql.query("retry_poisoned"), tenant_name))

    async def _one(self, query: str, *values: object) -> IndexTask | None:
        async with self.pools.bulk.worker() as connection:
            row = await connection.fetchrow(sql.query(query), *values)
        return _task(row) if row is not None else None


def _count(status: str) -> int:
    return int(status.rsplit(maxsplit=1)[-1])


def _task(row: asyncpg.Record) -> IndexTask:
    scope = Scope(
        TaskKind(row["kind"]),
        row["tenant"],
        row["collection"],
        row["profile"],
        row["dimension"],
        repair=row["repair"],
        poisoned_only=row["poisoned_only"],
    )
    return IndexTask(
        task_id=str(row["task_id"]),
        scope=scope,
        state=TaskState(row["state"]),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        done=row["done"],
        total=row["total"],
        differences=Differences(row["compared"], row["missing"], row["outdated"], row["orphaned"], row["repaired"]),
        progress=json.loads(row["progress"]),
        reason=row["reason"],
        message=row["message"],
        lease=str(row["lease"] or ""),
    )

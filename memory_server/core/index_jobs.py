"""Work on whole collections: asked for or due, done by one server at a time, gone on with after a crash."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from memory_server.domain.index_tasks import IndexTask, PoisonedRow, Scope, TaskKind, TaskState
from soma_contract.errors import Code, JobNotFoundError, SomaError

_log = logging.getLogger("soma.index_tasks")


class IndexTasks(Protocol):
    """Keeps the tasks; a task belongs to who holds its lease."""

    async def open(self, scope: Scope) -> IndexTask:
        """Enter a task; while one of the same scope is open, that one is returned."""
        ...

    async def schedule(self, interval_s: float) -> bool:
        """Enter a comparison of everything if the last began so long ago; return whether it was entered."""
        ...

    async def claim(self, lease_s: float) -> IndexTask | None:
        """Take the oldest task that nobody is at work on."""
        ...

    async def save(self, task: IndexTask, lease_s: float) -> bool:
        """Keep how far a task is and prolong its lease; False when another server has taken it over."""
        ...

    async def get(self, task_id: str) -> IndexTask | None:
        """Read a task."""
        ...

    async def last_reconcile(self) -> IndexTask | None:
        """Read the last comparison that ended well."""
        ...

    async def running(self) -> str:
        """Read the id of the task that is at work; empty for none."""
        ...

    async def page(
        self, tenant_name: str, state: TaskState | None, *, after: IndexTask | None, limit: int
    ) -> list[IndexTask]:
        """Read a page of tasks, newest first, behind ``after``."""
        ...

    async def poisoned(self, tenant_name: str, *, after: PoisonedRow | None, limit: int) -> list[PoisonedRow]:
        """Read a page of memories that cannot be indexed, oldest first, behind ``after``."""
        ...

    async def retry_poisoned(self, tenant_name: str) -> int:
        """Have what is poisoned tried again, of a tenant or of all (empty), and return how many that are."""
        ...


class TaskLostError(Exception):
    """Another server has taken the task over."""


Checkpoint = Callable[[IndexTask], Awaitable[None]]
"""Keeps how far a task is; raises TaskLostError when another server has taken it over."""

Work = Callable[[IndexTask, Checkpoint], Awaitable[IndexTask]]
"""Does a task from where it was left and returns it as it is at the end."""


_PASSING = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.ABORTED})
"""Failures that a task outlives."""


@dataclass(slots=True)
class IndexJobs:
    """Takes tasks one after the other and does them; also what is asked about them."""

    tasks: IndexTasks
    works: Mapping[TaskKind, Work]
    lease_s: float = 60.0
    poll_s: float = 1.0
    reconcile_every_s: float = 300.0
    """Pause between comparisons of everything; 0 makes none unasked."""
    _hint: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, scope: Scope) -> IndexTask:
        """Have something done; while the same is being done, that task is returned."""
        task = await self.tasks.open(scope)
        self._hint.set()
        return task

    async def get(self, task_id: str) -> IndexTask:
        """Read a task.  Raises JobNotFoundError."""
        task = await self.tasks.get(task_id) if _is_id(task_id) else None
        if task is None:
            raise JobNotFoundError(job_id=task_id)
        return task

    async def run(self) -> None:
        """Do tasks for ever; ends only by cancellation."""
        while True:
            try:
                worked = await self.step()
            except SomaError as error:
                _log.warning("work on the index waits: %s", error, extra={"fields": {"reason": error.reason}})
                worked = False
            except Exception:  # noqa: BLE001 - a defect met by one task must not end all others
                _log.exception("work on the index failed")
                worked = False
            if not worked:
                await self._wait()

    async def step(self) -> bool:
        """Do one task, if there is one, and return whether there was."""
        task = await self.tasks.claim(self.lease_s)
        if task is None:
            return self.reconcile_every_s > 0 and await self.tasks.schedule(self.reconcile_every_s)
        try:
            await self._do(task)
        except TaskLostError:
            _log.warning("another server has taken over a task of the index", extra={"fields": {"job": task.task_id}})
        return True

    async def _do(self, task: IndexTask) -> None:
        latest = task

        async def checkpoint(at: IndexTask) -> None:
            nonlocal latest
            if not await self.tasks.save(at, self.lease_s):
                raise TaskLostError
            latest = at

        try:
            ended = await self.works[task.scope.kind](task, checkpoint)
        except TaskLostError:
            raise
        except SomaError as error:
            if error.code in _PASSING:
                # A store is away, or a writer was in the way: whoever claims it next goes on where this was.
                await self.tasks.save(latest, min(self.lease_s, 5.0))
                raise
            await checkpoint(replace(latest, state=TaskState.FAILED, reason=error.reason, message=str(error)))
            return
        except Exception as error:
            await checkpoint(replace(latest, state=TaskState.FAILED, reason="INTERNAL", message=type(error).__name__))
            raise
        await checkpoint(replace(ended, state=TaskState.DONE, total=max(ended.total, ended.done)))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.poll_s):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()


def _is_id(task_id: str) -> bool:
    try:
        return bool(uuid.UUID(task_id))
    except ValueError:
        return False

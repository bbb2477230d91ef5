"""Write combining: the calls of one tenant that arrive while a transaction runs share the next one.

Nobody waits for company: a lone call starts at once, and whatever has come meanwhile goes together when it is
done.  Only calls of the same tenant are combined, so no lock, bad row or deadline of one tenant meets another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

from soma_contract.errors import BudgetSpentError, DrainingError, InternalError
from soma_contract.tenant import Tenant

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(slots=True)
class Waiting(Generic[Work, Result]):
    """A call in line: its work, how much it counts, when it must be done (loop time), and its answer."""

    work: Work
    weight: int
    due: float
    answer: asyncio.Future[Result]


Commit = Callable[[Tenant, Sequence[Waiting[Work, Result]]], Awaitable[None]]
"""Does the work of all that wait and answers each; what it leaves unanswered is an internal error."""


@dataclass(slots=True)
class Combining(Generic[Work, Result]):
    """Runs ``commit`` for one tenant at a time, with up to ``weight`` of work each time.

    An async context manager: leaving it waits for the transactions under way.
    """

    commit: Commit[Work, Result]
    weight: int = 256
    _lines: dict[str, deque[Waiting[Work, Result]]] = field(default_factory=dict)
    _tasks: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            await tasks.__aexit__(None, None, None)

    async def submit(self, tenant: Tenant, work: Work, *, weight: int, deadline_s: float) -> Result:
        """Have the work done and return its result.

        Raises BudgetSpentError after ``deadline_s`` seconds.  Work that was not begun by then, or whose
        caller was cancelled, is left out; work that was begun is finished whoever still listens.
        """
        if self._tasks is None:
            raise DrainingError
        loop = asyncio.get_running_loop()
        waiting = Waiting[Work, Result](work, weight, loop.time() + deadline_s, loop.create_future())
        line = self._lines.get(tenant.name)
        if line is None:
            line = self._lines[tenant.name] = deque()
            self._tasks.create_task(self._run(tenant, line))
        line.append(waiting)
        try:
            async with asyncio.timeout(deadline_s):
                return await waiting.answer
        except TimeoutError as error:
            raise BudgetSpentError(stage="write") from error

    async def _run(self, tenant: Tenant, line: deque[Waiting[Work, Result]]) -> None:
        """Work off a tenant's line; with the line's end, the tenant takes no memory here."""
        try:
            while line:
                batch = self._next(line)
                if not batch:
                    continue
                try:
                    await self.commit(tenant, batch)
                except Exception as error:  # noqa: BLE001 - it must reach the callers, and end no other tenant's line
                    _fail(batch, error)
                if not all(waiting.answer.done() for waiting in batch):
                    _fail(batch, InternalError("the call was left without an answer"))
        finally:
            del self._lines[tenant.name]

    def _next(self, line: deque[Waiting[Work, Result]]) -> list[Waiting[Work, Result]]:
        now = asyncio.get_running_loop().time()
        batch: list[Waiting[Work, Result]] = []
        total = 0
        while line and (not batch or total + line[0].weight <= self.weight):
            waiting = line.popleft()
            if waiting.answer.done() or waiting.due <= now:
                continue
            batch.append(waiting)
            total += waiting.weight
        return batch


def _fail(batch: Sequence[Waiting[Work, Result]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)

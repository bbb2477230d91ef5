"""Sharing worker threads between many callers: batches form by themselves, callers at a prompt go first.

There is no timer.  While a batch runs, what arrives waits and becomes the next one, so a batch is as large as the
load makes it.  All state lives on the event loop; only `Work` runs in threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from soma_contract.embedders.base import Priority
from soma_contract.errors import BudgetSpentError, DrainingError, OverloadedError

Key = TypeVar("Key")
Result = TypeVar("Result")

Work = Callable[[Sequence[Key]], Sequence[Result]]
"""Computes the results of keys, in order; blocking, called from several threads."""

Weigh = Callable[[Key], int]
"""Estimates how much work a key is."""


class _Job(Generic[Key, Result]):
    """One key under way, and how many callers want it."""

    __slots__ = ("future", "key", "started", "urgent", "waiters")

    def __init__(self, key: Key, future: asyncio.Future[Result], *, urgent: bool) -> None:
        self.key = key
        self.future = future
        self.waiters = 0
        self.started = False
        self.urgent = urgent


class Batcher(Generic[Key, Result]):
    """Computes a result a key in worker threads; equal keys under way are computed once.

    ``workers`` threads take any work; one more takes only that of callers at a prompt, so these never wait for a bulk
    batch to end.  ``batch_weight`` bounds a batch, ``max_pending`` what may be queued or running.
    """

    def __init__(
        self,
        work: Work[Key, Result],
        weigh: Weigh[Key],
        *,
        workers: int = 1,
        batch_weight: int = 4_000,
        max_pending: int = 1_024,
        name: str = "batch",
    ) -> None:
        self._work, self._weigh = work, weigh
        self._workers, self._batch_weight, self._max_pending = workers, batch_weight, max_pending
        self._threads = ThreadPoolExecutor(workers + 1, thread_name_prefix=name)
        self._queues: dict[Priority, deque[_Job[Key, Result]]] = {priority: deque() for priority in Priority}
        self._jobs: dict[Key, _Job[Key, Result]] = {}
        self._room = asyncio.Semaphore(max_pending)
        self._running = 0
        self._closed = False
        self._wake_scheduled = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Refuse what is queued, let the running batches end, stop the threads."""
        self._closed = True
        for job in list(self._jobs.values()):
            if not job.started:
                self._settle(job, error=DrainingError())
        await asyncio.to_thread(self._threads.shutdown)

    async def results(
        self, keys: Sequence[Key], *, priority: Priority = Priority.INTERACTIVE, deadline_s: float | None = None
    ) -> list[Result]:
        """Compute the results of ``keys``, in order.

        Bulk callers wait for room, callers at a prompt are refused with OverloadedError when there is none.  Raises
        BudgetSpentError after ``deadline_s`` and DrainingError when the batcher closes.  A cancelled call takes its
        keys out of the queue unless another wants them too.
        """
        mine: dict[Key, _Job[Key, Result]] = {}
        try:
            async with asyncio.timeout(deadline_s):
                for key in dict.fromkeys(keys):
                    mine[key] = await self._join(key, priority)
                waiting = [job.future for job in mine.values() if not job.future.done()]
                if waiting:
                    # Not gather: cancelling it would cancel futures that other callers wait for.
                    await asyncio.wait(waiting)
            return [mine[key].future.result() for key in keys]
        except TimeoutError:
            raise BudgetSpentError(stage="embed") from None
        finally:
            for job in mine.values():
                self._leave(job)

    async def _join(self, key: Key, priority: Priority) -> _Job[Key, Result]:
        job = self._jobs.get(key)
        if job is None:
            if priority is Priority.INTERACTIVE and self._room.locked():
                raise OverloadedError(scope="embedder", limit=str(self._max_pending))
            await self._room.acquire()
            if self._closed:
                self._room.release()
                raise DrainingError
            job = self._jobs.get(key)
            if job is not None:
                # Somebody brought the same key while this call waited for room.
                self._room.release()
            else:
                future = asyncio.get_running_loop().create_future()
                job = self._jobs[key] = _Job(key, future, urgent=priority is Priority.INTERACTIVE)
                self._queues[priority].append(job)
        if priority is Priority.INTERACTIVE and not job.started and not job.urgent:
            # A key that waits among bulk work goes to the front; its place there is skipped when reached.
            job.urgent = True
            self._queues[priority].append(job)
        job.waiters += 1
        self._wake()
        return job

    def _leave(self, job: _Job[Key, Result]) -> None:
        job.waiters -= 1
        if job.waiters == 0 and not job.started and not job.future.done():
            self._settle(job, error=asyncio.CancelledError())

    def _wake(self) -> None:
        """Start batches once this turn of the loop is over, when all that arrive in it are queued."""
        if not self._wake_scheduled:
            self._wake_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._wake_scheduled = False
        while self._running < self._workers + 1:
            express = self._running >= self._workers
            batch = self._next_batch(urgent_only=express)
            if not batch:
                return
            self._running += 1
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, self._work, [job.key for job in batch])
            running.add_done_callback(lambda done, batch=batch: self._finish(batch, done))  # type: ignore[misc]

    def _next_batch(self, *, urgent_only: bool) -> list[_Job[Key, Result]]:
        """Take jobs of one priority, the first one however heavy, then as many as the weight allows."""
        for priority in (Priority.INTERACTIVE,) if urgent_only else Priority:
            queue, batch, weight = self._queues[priority], list[_Job[Key, Result]](), 0
            while queue:
                job = queue[0]
                if job.started or job.future.done():
                    queue.popleft()
                    continue
                weight += self._weigh(job.key)
                if batch and weight > self._batch_weight:
                    break
                queue.popleft()
                job.started = True
                batch.append(job)
            if batch:
                return batch
        return []

    def _finish(self, batch: list[_Job[Key, Result]], done: asyncio.Future[Sequence[Result]]) -> None:
        self._running -= 1
        error = done.exception()
        if error is None:
            for job, result in zip(batch, done.result(), strict=True):
                self._settle(job, result=result)
        elif len(batch) > 1:
            # One bad key must not fail its neighbours: each is tried alone.
            for job in batch:
                self._retry(job)
        else:
            self._settle(batch[0], error=error)
        if not self._closed:
            self._wake()

    def _retry(self, job: _Job[Key, Result]) -> None:
        if self._closed:
            self._settle(job, error=DrainingError())
            return
        self._running += 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._work, [job.key])
        running.add_done_callback(lambda done: self._finish([job], done))

    def _settle(
        self, job: _Job[Key, Result], *, result: Result | None = None, error: BaseException | None = None
    ) -> None:
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]
            self._room.release()
        if job.future.done():
            return
        if isinstance(error, asyncio.CancelledError):
            job.future.cancel()
        elif error is not None:
            job.future.set_exception(error)
            job.future.exception()  # marks it as seen: nobody may be left to look
        else:
            job.future.set_result(result)  # type: ignore[arg-type]

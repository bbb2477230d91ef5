"""One thread that owns the SQLite connection and commits at once whatever has arrived: group commit without a timer.

While one commit waits for the disk, further jobs queue up; the next commit takes them all.  A lone job therefore waits
for one fsync only, and a crowd shares it.  Jobs that nobody waits for (`later`) ride along with the next commit or
are committed after 100 ms at the latest.

A failed fsync is never retried: the kernel may have dropped the dirty pages and would report success.  After an I/O
error the writer refuses everything until the process starts anew, which reads what the disk really holds.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rpckit.failpoints import failpoint
from soma_contract.errors import ComponentUnavailableError, OutboxFullError, SomaError

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], Any]

_MAX_BATCH = 1_024
_LATER_S = 0.1
_FULL_S = 1.0
"""How long jobs that nobody waits for rest after the disk was found full."""
_DISK_FULL = 13
_NOT_FATAL = {19, 20, 25}
"""Constraint, mismatch, range: the job is at fault, not the disk."""


@dataclass(frozen=True, slots=True)
class _Job:
    step: Step
    future: asyncio.Future[Any] | None
    """None for jobs that nobody waits for."""


class Writer:
    """Runs jobs on the connection in the order they were given; `open_connection` is called in the thread."""

    def __init__(self, open_connection: Callable[[], sqlite3.Connection]) -> None:
        self._open_connection = open_connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="brain-file", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._broken: str | None = None
        self._closed = False
        self.commits = 0
        """Transactions committed, each with one fsync."""

    @property
    def broken(self) -> str | None:
        """Why nothing is taken any more, or None while all is well."""
        return self._broken

    async def start(self) -> None:
        """Open the connection; raises what that raised."""
        self._thread.start()
        await self._opened

    async def run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run one step in the next transaction and return its result after the fsync."""
        return await self.submit(step)

    def submit(self, step: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue one step; the future is done after the fsync, whether or not anybody still waits for it."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._broken is not None or self._closed:
            future.set_exception(_unavailable())
            future.exception()
        else:
            self._jobs.put(_Job(step, future))
        return future

    def later(self, step: Step) -> None:
        """Queue a step that may be lost in a power cut, because doing it again would be harmless."""
        if self._broken is None and not self._closed:
            self._jobs.put(_Job(step, None))

    async def close(self) -> None:
        """Commit what is queued, then close the connection."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = self._open_connection()
        except BaseException as error:  # noqa: BLE001 - it is raised where start() is awaited
            self._tell([(self._opened, None, error)])
            return
        self._tell([(self._opened, None, None)])
        try:
            self._serve(connection)
        finally:
            connection.close()

    def _serve(self, connection: sqlite3.Connection) -> None:
        unhurried: list[_Job] = []
        due = 0.0
        while True:
            jobs, stop = self._take(max(0.0, due - time.monotonic()) if unhurried else None)
            urgent = any(job.future is not None for job in jobs)
            if not urgent and not unhurried:
                due = time.monotonic() + _LATER_S
            unhurried.extend(jobs)
            if unhurried and (urgent or stop or time.monotonic() >= due or len(unhurried) >= _MAX_BATCH):
                batch, unhurried = unhurried, []
                if unhurried := self._commit(connection, batch):
                    due = time.monotonic() + _FULL_S
            if stop:
                return

    def _take(self, timeout_s: float | None) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        try:
            job = self._jobs.get(timeout=timeout_s)
            while job is not None:
                jobs.append(job)
                if len(jobs) >= _MAX_BATCH:
                    return jobs, False
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[_Job]:
        """Commit a batch and tell those who wait; return the jobs to be tried again later."""
        if self._broken is not None:
            self._tell([(job.future, None, _unavailable()) for job in batch])
            return []
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [job.step(connection) for job in batch]
            failpoint("brain.file.written")
            connection.execute("COMMIT")
            failpoint("brain.file.committed")
        except Exception as error:  # noqa: BLE001 - it is raised where the job's future is awaited
            return self._failed(connection, batch, error)
        self.commits += 1
        self._tell([(job.future, result, None) for job, result in zip(batch, results, strict=True)])
        return []

    def _failed(self, connection: sqlite3.Connection, batch: list[_Job], error: Exception) -> list[_Job]:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary is not None and primary != _DISK_FULL and primary not in _NOT_FATAL:
            self._broken = f"{error} ({getattr(error, 'sqlite_errorname', primary)})"
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            self._broken = f"{second} while undoing: {error}"
        if self._broken is None and primary != _DISK_FULL and len(batch) > 1:
            # One job is at fault; the others must not suffer for it.
            return [again for job in batch for again in self._commit(connection, [job])]
        answer: Exception = error
        if self._broken is not None:
            answer = _unavailable()
        elif primary == _DISK_FULL:
            answer = OutboxFullError(scope="disk", limit="free space")
        self._tell([(job.future, None, answer) for job in batch])
        return [job for job in batch if job.future is None and primary == _DISK_FULL and self._broken is None]

    def _tell(self, answers: Sequence[tuple[asyncio.Future[Any] | None, Any, BaseException | None]]) -> None:
        waiting = [(future, result, error) for future, result, error in answers if future is not None]
        if not waiting:
            return
        try:
            self._loop.call_soon_threadsafe(_resolve, waiting)
        except RuntimeError:
            # The loop is gone, and with it everybody who waited.
            return


def _resolve(answers: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            # Seen here: whoever waited may have been cancelled meanwhile.
            future.exception()


def _unavailable() -> SomaError:
    return ComponentUnavailableError(component="outbox")

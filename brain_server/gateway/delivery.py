"""Delivery of the outbox: at once while all is well, later in the same order when it was not.

    answer = await delivery.submit(tenant, draft, deadline_s=2.0)
    match answer:
        case Stored(result): ...   # the memory server has committed it
        case Queued(entry): ...    # it is on this disk and will be stored

A caller never waits for a second attempt: the first failure of the other side answers QUEUED.  A refusal that will not
change is raised to the caller who waits for it; if nobody does, the entry goes to the dead-letter list.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from types import TracebackType
from typing import Any, Self

from brain_server.domain.entry import Draft, Entry, Rejection
from brain_server.domain.pace import Pace
from brain_server.domain.retrying import MAX_AGE_S, TRIES_OF_ITS_OWN, WAITS_FOR_ITS_ENDS, Fate, fate_of
from brain_server.domain.schedule import Schedule
from brain_server.gateway.outbox import Outbox
from brain_server.ports import Clock, NoMetrics, OutboxMetrics, Sender, SystemClock
from rpckit.failpoints import failpoint
from soma_contract.errors import CircuitBreakerOpenError, Code, InternalError, SomaError, WriteConflictError
from soma_contract.tenant import Tenant

log = logging.getLogger(__name__)

_MOST_LIVE = 512
_MARGIN_S = 0.05
"""How long before its deadline a caller is told QUEUED."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The memory server has committed the write; `result` is what the sender returned."""

    result: Any
    entry: Entry


@dataclass(frozen=True, slots=True)
class Queued:
    """The write is on this disk and will be stored exactly once, or end on the dead-letter list; or it is stored."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Callers who want to know what becomes of an entry."""

    entry: Entry
    callers: list[asyncio.Future[Stored | Queued]]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """The first caller's: what is sent for it is a part of its call."""

    def answer(self, answer: Stored | Queued) -> None:
        for caller in self.callers:
            if not caller.done():
                caller.set_result(answer)

    def fail(self, error: SomaError) -> None:
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(error)
                # Seen here: the caller may be gone by the time it would look.
                caller.exception()


class Delivery:
    """Sends what the outbox holds; an async context manager, entered after `Outbox.load`."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
        metrics: OutboxMetrics | None = None,
        most_in_flight: int = 64,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self.outbox = outbox
        self.pace = Pace(most_in_flight)
        self._sender = sender
        self._clock = clock or SystemClock()
        self._metrics = metrics or NoMetrics()
        self._schedule = Schedule(rng or Random(), most_in_flight)
        self._max_age_s = max_age_s
        self._waiting: dict[int, _Waiting] = {}
        self._successes = 0
        self._successes_at_failure: dict[int, int] = {}
        self._live = 0
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self.delivered = 0
        """Entries stored since this delivery began."""
        self._tasks: asyncio.TaskGroup | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._no_call = contextvars.copy_context()
        self._sends: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """How many entries are on their way now."""
        return len(self._sends)

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self.outbox.on_ready = self._ready
        self.outbox.on_gone = self._gone
        for entry in self.outbox.ordering.ready():
            if self.outbox.is_durable(entry):
                self._schedule.add(entry)
        self._pump_task = self._tasks.create_task(self._pump())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        assert self._pump_task is not None
        tasks, self._tasks = self._tasks, None
        self._pump_task.cancel()
        for task in self._sends:
            task.cancel()
        for waiting in [*self._waiting.values()]:
            # Its append is awaited before this answer is read, so it is true.
            waiting.answer(Queued(waiting.entry))
        await tasks.__aexit__(None, None, None)

    async def submit(self, tenant: Tenant, draft: Draft, deadline_s: float | None = None) -> Stored | Queued:
        """Append a write, then send it and wait for the answer until shortly before the deadline.

        Raises what `Outbox.append` raises, and the memory server's refusal of this very write.
        """
        started = self._clock.monotonic()
        if (before := self.outbox.delivered_before(tenant, draft)) is not None:
            return await self._answered_again(before, draft.payload, deadline_s)
        appended = self.outbox.append(tenant, draft)
        entry = appended.entry
        caller: asyncio.Future[Stored | Queued] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(entry.sequence, _Waiting(entry, [])).callers.append(caller)
        try:
            await appended.wait()
            if self._is_held_up(entry):
                self._answer_queued(entry)
            left_s = None
            if deadline_s is not None:
                left_s = max(0.0, deadline_s - _MARGIN_S - (self._clock.monotonic() - started))
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    return await caller
            return Queued(entry)
        finally:
            self._stop_waiting(entry, caller)

    async def _answered_again(self, entry: Entry, payload: bytes, deadline_s: float | None) -> Stored | Queued:
        """Have the memory server repeat its answer; what it has already is not queued again, over later writes."""
        try:
            async with asyncio.timeout(None if deadline_s is None else max(0.0, deadline_s - _MARGIN_S)):
                return Stored(await self._sender.send(entry, payload), entry)
        except TimeoutError:
            return Queued(entry)
        except SomaError as error:
            if fate_of(error) is Fate.DEAD:
                raise
            return Queued(entry)

    def wake(self) -> None:
        """Try everything at once: a breaker closed, or a health probe said that the memory server is back."""
        self._schedule.wake()
        self._changed.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is pending; return whether that was reached in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.outbox.depth().pending:
                    self._idle.clear()
                    await self._idle.wait()
        return self.outbox.depth().pending == 0

    # --- from the outbox ------------------------------------------------------------------------

    def _ready(self, entry: Entry) -> None:
        if self._tasks is None:
            return
        healthy = self._schedule.is_healthy(entry.tenant.name)
        if healthy and entry.sequence in self._waiting and self._live < _MOST_LIVE:
            self._schedule.launch(entry, self._clock.monotonic())
            self._start(entry, live=True)
            return
        self._schedule.add(entry)
        self._changed.set()

    def _gone(self, entry: Entry) -> None:
        self._schedule.remove(entry)
        self._successes_at_failure.pop(entry.sequence, None)
        if waiting := self._waiting.pop(entry.sequence, None):
            waiting.fail(WriteConflictError("the tenant was erased while this was written"))
        self._idle.set()

    # --- sending --------------------------------------------------------------------------------

    async def _pump(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock.monotonic()
            while self._schedule.replaying < self.pace.limit:
                entry = self._schedule.take(now)
                if entry is None:
                    break
                self._start(entry, live=False)
            wakes_at = self._schedule.wakes_at()
            full = self._schedule.replaying >= self.pace.limit
            timeout_s = None if wakes_at is None or full else max(0.0, wakes_at - now)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()

    def _start(self, entry: Entry, *, live: bool) -> None:
        assert self._tasks is not None
        self._live += live
        # Never in the context this happens to run in: that may be another entry's, or its caller's.
        waiting = self._waiting.get(entry.sequence) if live else None
        context = (waiting.context if waiting else self._no_call).copy()
        task = self._tasks.create_task(self._send(entry, live=live), context=context)
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _send(self, entry: Entry, *, live: bool) -> None:
        started = self._clock.monotonic()
        try:
            age_s = (self._clock.now() - entry.origin_at).total_seconds()
            if age_s > self._max_age_s:
                self._bury(entry, Rejection(Code.DEADLINE_EXCEEDED, "AGE_LIMIT", "it could not be sent in time"))
                return
            failpoint("delivery.taken")
            try:
                result = await self._sender.send(entry, await self.outbox.payload(entry))
            except SomaError as error:
                self._refused(entry, error)
            except Exception:
                # An unforeseen fault must not stop the delivery of everything else.
                log.exception("sending outbox entry %s failed", entry.entry_id)
                self._refused(entry, InternalError())
            else:
                self._stored(entry, result, self._clock.monotonic() - started, age_s)
        finally:
            self._live -= live
            # While all is well nothing waits, and the pump need not look after every single write.
            if self._schedule.has_waiting:
                self._changed.set()
            self._idle.set()

    def _stored(self, entry: Entry, result: Any, took_s: float, age_s: float) -> None:
        failpoint("delivery.answered")
        self._successes += 1
        self._successes_at_failure.pop(entry.sequence, None)
        self.pace.took(took_s)
        self._schedule.stored(entry)
        self.outbox.settle(entry, delivered=True)
        failpoint("delivery.settled")
        self.delivered += 1
        self._metrics.outbox_delivered(entry.operation, age_s + took_s)
        if waiting := self._waiting.pop(entry.sequence, None):
            waiting.answer(Stored(result, entry))

    def _refused(self, entry: Entry, error: SomaError) -> None:
        fate = fate_of(error)
        if not self.outbox.is_pending(entry):
            self._schedule.landed(entry)
            return
        if fate is Fate.SUSPECT:
            entry = self._suspect(entry)
        if fate is Fate.DEAD or (fate is Fate.SUSPECT and entry.attempts >= TRIES_OF_ITS_OWN):
            self._reject(entry, error)
        else:
            shut = isinstance(error, CircuitBreakerOpenError)
            # Only who throttles or refuses knows when to come back; elsewhere the figure is a class's default.
            told = error.retry_after_s if shut or error.code is Code.RESOURCE_EXHAUSTED else None
            self._schedule.failed(entry, self._clock.monotonic(), told or 0.0, lane_is_shut=shut)
            self._answer_queued(entry)
            for waiting in [*self._waiting.values()]:
                other = waiting.entry
                if other.tenant == entry.tenant and self.outbox.is_durable(other) and self._is_held_up(other):
                    self._answer_queued(other)

    def _reject(self, entry: Entry, error: SomaError) -> None:
        waits_for_end = error.code is Code.NOT_FOUND and entry.operation in WAITS_FOR_ITS_ENDS
        if waits_for_end and self.outbox.ordering.has_company(entry):
            self._schedule.landed(entry)
            self._answer_queued(entry)
            self.outbox.defer(entry)
        elif waiting := self._waiting.pop(entry.sequence, None):
            # Told to the face of the caller, so there is nobody left to whom it would be news.
            self._schedule.landed(entry)
            self._successes_at_failure.pop(entry.sequence, None)
            self.outbox.settle(entry, delivered=False)
            waiting.fail(error)
        else:
            self._bury(entry, Rejection.of(error))

    def _bury(self, entry: Entry, rejection: Rejection) -> None:
        self._schedule.landed(entry)
        self._successes_at_failure.pop(entry.sequence, None)
        if waiting := self._waiting.pop(entry.sequence, None):
            waiting.fail(rejection.error())
        self.outbox.bury(entry, rejection)

    def _suspect(self, entry: Entry) -> Entry:
        """Count a failure that may be the entry's own: others were stored since it last failed."""
        since = self._successes_at_failure.get(entry.sequence, self._successes - 1)
        self._successes_at_failure[entry.sequence] = self._successes
        if self._successes == since or self._successes == 0:
            return entry
        return self.outbox.mark(replace(entry, attempts=entry.attempts + 1))

    def _answer_queued(self, entry: Entry) -> None:
        if waiting := self._waiting.pop(entry.sequence, None):
            waiting.answer(Queued(entry))

    def _is_held_up(self, entry: Entry) -> bool:
        """Return whether an entry has to wait for the other side to recover rather than for its turn."""
        if self._schedule.in_flight(entry):
            return False
        if not self._schedule.is_healthy(entry.tenant.name):
            return True
        ahead, seen = [entry], set()
        while ahead:
            each = ahead.pop()
            if each.sequence not in seen:
                seen.add(each.sequence)
                if self._schedule.has_failed(each) and not self._schedule.in_flight(each):
                    return True
                ahead.extend(self.outbox.ordering.ahead_of(each))
        return False

    def _stop_waiting(self, entry: Entry, caller: asyncio.Future[Stored | Queued]) -> None:
        waiting = self._waiting.get(entry.sequence)
        if waiting is not None and caller in waiting.callers:
            waiting.callers.remove(caller)
            if not waiting.callers:
                del self._waiting[entry.sequence]

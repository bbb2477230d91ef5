"""When which ready entry is sent: fair between tenants, patient with those that fail.

Every tenant has a lane.  Lanes take turns, one entry a turn, and none may hold more than three quarters of the
places in flight.  A failed entry waits by itself.  When two different entries of a lane fail in a row the lane is
held back: one probe at a time, at intervals that double, until one succeeds, and then everything goes on at once.
An outage therefore costs a few calls a minute and not one entry an attempt.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random

from brain_server.domain.entry import Entry
from brain_server.domain.retrying import LONGEST_WAIT_S, wait_s

_FAILING_AFTER = 2


@dataclass(slots=True)
class _Flight:
    entry: Entry
    since: float
    live: bool


@dataclass(slots=True)
class _Lane:
    ready: deque[Entry] = field(default_factory=deque)
    waiting: list[tuple[float, int, Entry]] = field(default_factory=list)
    in_flight: int = 0
    row: int = 0
    """Failures of different entries since the last success."""
    last_failed: int = -1
    held: int = 0
    """How many times in a row it was held back; 0 is a healthy lane."""
    held_until: float = 0.0
    held_since: float = 0.0
    turns: bool = False
    """Whether it stands in the line for turns."""


class Schedule:
    """Ready entries of all tenants; who is in flight, who waits for what."""

    def __init__(self, rng: Random, most_in_flight: int = 64) -> None:
        self._rng = rng
        self._most_of_a_lane = max(1, most_in_flight * 3 // 4)
        self._lanes: dict[str, _Lane] = {}
        self._turns: deque[str] = deque()
        self._flights: dict[int, _Flight] = {}
        self._failures: dict[int, int] = {}
        self._dropped: set[int] = set()
        self.replaying = 0
        """Entries in flight that nobody waits for."""

    @property
    def has_waiting(self) -> bool:
        """Whether any entry is not in flight."""
        return bool(self._turns)

    def is_healthy(self, tenant: str) -> bool:
        """Return whether the tenant's lane is not held back."""
        lane = self._lanes.get(tenant)
        return lane is None or lane.held == 0

    def add(self, entry: Entry) -> None:
        """Take in an entry that is ready to be sent."""
        lane = self._lanes.setdefault(entry.tenant.name, _Lane())
        lane.ready.append(entry)
        self._queue(entry.tenant.name, lane)

    def take(self, now: float) -> Entry | None:
        """Return the next entry to send, or None; it is in flight until `stored`, `failed` or `dropped`."""
        for _ in range(len(self._turns)):
            tenant = self._turns.popleft()
            lane = self._lanes[tenant]
            lane.turns = False
            entry = self._next(lane, now)
            if entry is not None:
                self._fly(entry, lane, now, live=False)
            if lane.ready or lane.waiting:
                self._queue(tenant, lane)
            else:
                self._forget_if_idle(tenant)
            if entry is not None:
                return entry
        return None

    def launch(self, entry: Entry, now: float) -> None:
        """Put an entry in flight out of turn, because a caller waits for it; it must not have been added."""
        self._fly(entry, self._lanes.setdefault(entry.tenant.name, _Lane()), now, live=True)

    def stored(self, entry: Entry) -> None:
        """Take an entry out of flight that was stored: its lane is well, and whoever waited in it may go."""
        self._answered(entry)

    def landed(self, entry: Entry) -> None:
        """Take an entry out of flight that was refused for good or has to wait for another: that is an answer too."""
        self._answered(entry)

    def failed(self, entry: Entry, now: float, retry_after_s: float = 0.0, *, lane_is_shut: bool = False) -> None:
        """Put an entry back to be tried again; `lane_is_shut` says that no other of the tenant would fare better."""
        started = self._flights[entry.sequence].since
        lane = self._land(entry)
        failures = self._failures[entry.sequence] = self._failures.get(entry.sequence, 0) + 1
        if entry.sequence != lane.last_failed:
            lane.row += 1
            lane.last_failed = entry.sequence
        was_probe = not lane.held or started >= lane.held_since
        if was_probe and (lane.held or lane.row >= _FAILING_AFTER or lane_is_shut):
            lane.held += 1
            lane.held_since = now
            lane.held_until = now + wait_s(lane.held, self._rng, min(retry_after_s, LONGEST_WAIT_S))
        if entry.sequence in self._dropped:
            self._dropped.discard(entry.sequence)
            self._failures.pop(entry.sequence, None)
        else:
            at = now if lane_is_shut else now + wait_s(failures, self._rng, min(retry_after_s, LONGEST_WAIT_S))
            heapq.heappush(lane.waiting, (at, entry.sequence, entry))
        self._settle_lane(entry.tenant.name, lane)

    def remove(self, entry: Entry) -> None:
        """Forget an entry that is not to be sent any more; one in flight is forgotten when it lands."""
        if entry.sequence in self._flights:
            self._dropped.add(entry.sequence)
            return
        lane = self._lanes.get(entry.tenant.name)
        if lane is None:
            return
        self._failures.pop(entry.sequence, None)
        lane.ready = deque(kept for kept in lane.ready if kept.sequence != entry.sequence)
        lane.waiting = [item for item in lane.waiting if item[1] != entry.sequence]
        heapq.heapify(lane.waiting)

    def in_flight(self, entry: Entry) -> bool:
        """Return whether an entry is on its way."""
        return entry.sequence in self._flights

    def has_failed(self, entry: Entry) -> bool:
        """Return whether the last attempt to send an entry failed."""
        return entry.sequence in self._failures

    def wake(self) -> None:
        """End every wait: something says that the other side is back."""
        for lane in self._lanes.values():
            lane.held_until = 0.0
            self._release(lane)

    def wakes_at(self) -> float | None:
        """Return when `take` may have something that it has not now, or None if only a change can bring it."""
        times = []
        for tenant in self._turns:
            lane = self._lanes[tenant]
            if lane.held:
                if lane.in_flight:
                    continue
                times.append(lane.held_until)
            elif lane.waiting and not lane.ready and lane.in_flight < self._most_of_a_lane:
                times.append(lane.waiting[0][0])
        return min(times, default=None)

    def _next(self, lane: _Lane, now: float) -> Entry | None:
        if lane.held:
            if lane.in_flight or now < lane.held_until:
                return None
            if not lane.ready and lane.waiting:
                return heapq.heappop(lane.waiting)[2]
        elif lane.in_flight >= self._most_of_a_lane:
            return None
        elif lane.waiting and lane.waiting[0][0] <= now:
            return heapq.heappop(lane.waiting)[2]
        return lane.ready.popleft() if lane.ready else None

    def _fly(self, entry: Entry, lane: _Lane, now: float, *, live: bool) -> None:
        lane.in_flight += 1
        self.replaying += not live
        self._flights[entry.sequence] = _Flight(entry, now, live)

    def _land(self, entry: Entry) -> _Lane:
        flight = self._flights.pop(entry.sequence)
        self.replaying -= not flight.live
        lane = self._lanes[entry.tenant.name]
        lane.in_flight -= 1
        return lane

    def _answered(self, entry: Entry) -> None:
        lane = self._land(entry)
        self._failures.pop(entry.sequence, None)
        self._dropped.discard(entry.sequence)
        lane.row, lane.last_failed = 0, -1
        if lane.held:
            lane.held, lane.held_until = 0, 0.0
            self._release(lane)
        self._settle_lane(entry.tenant.name, lane)

    def _release(self, lane: _Lane) -> None:
        lane.ready.extendleft(item[2] for item in sorted(lane.waiting, reverse=True))
        lane.waiting.clear()

    def _settle_lane(self, tenant: str, lane: _Lane) -> None:
        if lane.ready or lane.waiting:
            self._queue(tenant, lane)
        else:
            self._forget_if_idle(tenant)

    def _queue(self, tenant: str, lane: _Lane) -> None:
        if not lane.turns:
            lane.turns = True
            self._turns.append(tenant)

    def _forget_if_idle(self, tenant: str) -> None:
        lane = self._lanes[tenant]
        if not (lane.in_flight or lane.ready or lane.waiting or lane.turns):
            del self._lanes[tenant]

"""What opens a breaker, and how the probes of a half-open one are judged.

A tenant's breaker looks at that tenant's calls.  A dependency's looks at tenants: each counts once however many calls
it makes, so one tenant that fails all day is one bad tenant, and a dead server is known after three.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from brain_server.domain.breaker import BreakerRules, BreakerState, Outcome

_MAX_TALLIES = 10_000
"""Tenants counted at once by a dependency's evidence; calls of further ones are not counted in the window."""


@dataclass(slots=True)
class Tally:
    """Calls, and those among them that failed or were slow."""

    calls: int = 0
    failed: int = 0
    slow: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add one call."""
        self.calls += 1
        self.failed += outcome is Outcome.FAILED
        self.slow += outcome is Outcome.SLOW

    def subtract(self, other: Tally) -> None:
        """Take another tally's calls out of this one."""
        self.calls -= other.calls
        self.failed -= other.failed
        self.slow -= other.slow

    def is_bad(self, rules: BreakerRules) -> bool:
        """Return whether one of the two shares has reached its limit."""
        return self.failed >= rules.failure_share * self.calls or self.slow >= rules.slow_share * self.calls


class OwnEvidence:
    """One tenant's calls: failures in a row, and shares of the calls in the window."""

    __slots__ = ("_buckets", "_row", "_rules", "_total", "_width_s")

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._width_s = rules.window_s / rules.buckets
        self._buckets: deque[tuple[int, Tally]] = deque()
        self._total = Tally()
        self._row = 0

    def add(self, tenant: str, outcome: Outcome, now: float) -> bool:
        """Count one call; return whether the breaker must open."""
        index = int(now // self._width_s)
        while self._buckets and self._buckets[0][0] <= index - self._rules.buckets:
            self._total.subtract(self._buckets.popleft()[1])
        if not self._buckets or self._buckets[-1][0] < index:
            self._buckets.append((index, Tally()))
        self._buckets[-1][1].count(outcome)
        self._total.count(outcome)
        self._row = self._row + 1 if outcome is Outcome.FAILED else 0
        if self._row >= self._rules.consecutive:
            return True
        return self._total.calls >= self._rules.min_calls and self._total.is_bad(self._rules)

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._total = Tally()
        self._row = 0


class OwnTrial:
    """Probes of one tenant: the first failure reopens, five answers close unless nearly all were slow."""

    __slots__ = ("_answers", "_rules", "_slow")

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._answers = 0
        self._slow = 0

    def add(self, tenant: str, outcome: Outcome) -> BreakerState | None:
        """Count one probe; return the state it decides for, or None while undecided."""
        if outcome is Outcome.FAILED:
            return BreakerState.OPEN
        self._answers += 1
        self._slow += outcome is Outcome.SLOW
        if self._answers < self._rules.probes:
            return None
        return BreakerState.OPEN if self._slow >= self._rules.slow_share * self._answers else BreakerState.CLOSED


class SharedEvidence:
    """All tenants' calls: failures of several in a row with no success between, or several tenants with bad shares."""

    __slots__ = ("_bad", "_buckets", "_row", "_row_tenants", "_rules", "_tallies", "_total", "_width_s")

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._width_s = rules.window_s / rules.buckets
        self._buckets: deque[tuple[int, dict[str, Tally]]] = deque()
        self._tallies: dict[str, Tally] = {}
        self._bad: set[str] = set()
        self._total = 0
        self._row = 0
        self._row_tenants: set[str] = set()

    def add(self, tenant: str, outcome: Outcome, now: float) -> bool:
        """Count one call of a tenant; return whether the breaker must open."""
        self._expire(int(now // self._width_s))
        self._count(tenant, outcome, int(now // self._width_s))
        if outcome is Outcome.FAILED:
            self._row += 1
            if len(self._row_tenants) < self._rules.tenants:
                self._row_tenants.add(tenant)
        else:
            self._row = 0
            self._row_tenants.clear()
        if self._row >= self._rules.consecutive and len(self._row_tenants) >= self._rules.tenants:
            return True
        bad = len(self._bad)
        return (
            self._total >= self._rules.min_calls
            and bad >= self._rules.tenants
            and bad >= self._rules.failure_share * len(self._tallies)
        )

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._tallies.clear()
        self._bad.clear()
        self._total = 0
        self._row = 0
        self._row_tenants.clear()

    def _count(self, tenant: str, outcome: Outcome, index: int) -> None:
        tally = self._tallies.get(tenant)
        if tally is None:
            if len(self._tallies) >= _MAX_TALLIES:
                return
            tally = self._tallies[tenant] = Tally()
        if not self._buckets or self._buckets[-1][0] < index:
            self._buckets.append((index, {}))
        self._buckets[-1][1].setdefault(tenant, Tally()).count(outcome)
        tally.count(outcome)
        self._total += 1
        self._judge(tenant, tally)

    def _expire(self, index: int) -> None:
        while self._buckets and self._buckets[0][0] <= index - self._rules.buckets:
            for tenant, old in self._buckets.popleft()[1].items():
                tally = self._tallies[tenant]
                tally.subtract(old)
                self._total -= old.calls
                if tally.calls:
                    self._judge(tenant, tally)
                else:
                    del self._tallies[tenant]
                    self._bad.discard(tenant)

    def _judge(self, tenant: str, tally: Tally) -> None:
        if tally.is_bad(self._rules):
            self._bad.add(tenant)
        else:
            self._bad.discard(tenant)


class SharedTrial:
    """Probes of all tenants: reopened by three failing tenants or five failures in a row, closed by five answers.

    A single failure decides nothing here, else one bad tenant could keep the dependency shut for all.
    """

    __slots__ = ("_answers", "_failing", "_row", "_rules", "_slow")

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._answers = 0
        self._slow = 0
        self._row = 0
        self._failing: set[str] = set()

    def add(self, tenant: str, outcome: Outcome) -> BreakerState | None:
        """Count one probe of a tenant; return the state it decides for, or None while undecided."""
        if outcome is Outcome.FAILED:
            self._row += 1
            self._failing.add(tenant)
            reopen = len(self._failing) >= self._rules.tenants or self._row >= self._rules.consecutive
            return BreakerState.OPEN if reopen else None
        self._row = 0
        self._answers += 1
        self._slow += outcome is Outcome.SLOW
        if self._answers < self._rules.probes:
            return None
        return BreakerState.OPEN if self._slow >= self._rules.slow_share * self._answers else BreakerState.CLOSED

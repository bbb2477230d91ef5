"""A circuit breaker as a pure state machine: time and randomness are arguments, nothing here waits.

    CLOSED ──evidence──▶ OPEN ──time, or a good health probe──▶ HALF_OPEN ──5 good calls──▶ CLOSED
                          ▲                                        │
                          └───────────── the trial fails ──────────┘

What counts as evidence and how a trial is judged is `evidence.py`; one tenant's breaker and a dependency's differ in
nothing else.  Every transition starts a new generation, and the result of a call admitted in an earlier one is
ignored: calls that began before an outage was noticed may fail long after, and must not reopen what recovered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Protocol

from soma_contract.errors import Code


class BreakerState(Enum):
    """The three states, by the names that pybreaker shows them under."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Outcome(Enum):
    """What a finished call says about the dependency."""

    GOOD = "good"
    SLOW = "slow"
    """It answered, after more than 80 % of the deadline."""
    FAILED = "failed"
    IGNORED = "ignored"
    """Cancelled, throttled, or given too little time to judge by."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens and how it comes back."""

    consecutive: int = 5
    """Failures in a row that open it."""
    window_s: float = 10.0
    buckets: int = 10
    """The window is counted in this many buckets of equal length."""
    min_calls: int = 20
    """Shares are judged from this many calls in the window on."""
    failure_share: float = 0.5
    slow_share: float = 0.8
    slow_after: float = 0.8
    """The share of its deadline after which an answer counts as slow."""
    floor_s: float = 0.1
    """A call given less time than this says nothing when its deadline passes."""
    open_s: float = 1.0
    open_max_s: float = 60.0
    jitter: float = 0.2
    """The open time is drawn from (1 ± jitter) of its nominal value, so that brains do not return in step."""
    probes: int = 5
    """Calls in flight while half-open, and good ones needed to close."""
    tenants: int = 3
    """Tenants whose evidence together opens the breaker of a dependency."""
    failed_health_probes: int = 2
    """Health probes failing in a row that open the breaker of a dependency."""


_FAILURES = frozenset({Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
_IGNORED = frozenset({Code.CANCELLED, Code.RESOURCE_EXHAUSTED})


def classify(code: Code, elapsed_s: float, deadline_s: float | None, rules: BreakerRules) -> Outcome:
    """Return what a call that ended with `code` after `elapsed_s` says about the dependency.

    A client error is an answer like any other: whoever refuses a request is well.  Throttling is not: it is neither
    a failure nor proof of health.
    """
    if code in _FAILURES:
        return Outcome.FAILED
    if code is Code.DEADLINE_EXCEEDED:
        enough = deadline_s is None or deadline_s >= rules.floor_s
        return Outcome.FAILED if enough else Outcome.IGNORED
    if code in _IGNORED:
        return Outcome.IGNORED
    if deadline_s is not None and deadline_s >= rules.floor_s and elapsed_s > rules.slow_after * deadline_s:
        return Outcome.SLOW
    return Outcome.GOOD


class Evidence(Protocol):
    """Counts calls while the breaker is closed."""

    def add(self, tenant: str, outcome: Outcome, now: float) -> bool:
        """Count one call; return whether the breaker must open."""

    def clear(self) -> None:
        """Forget everything."""


class Trial(Protocol):
    """Judges the probes of one half-open phase."""

    def add(self, tenant: str, outcome: Outcome) -> BreakerState | None:
        """Count one probe; return the state it decides for, or None while undecided."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; goes back through `Breaker.settle` exactly once."""

    tenant: str
    generation: int
    probe: bool


class Breaker:
    """One breaker; `on_change(old, new)` is called after each transition."""

    __slots__ = (
        "_evidence",
        "_failed_health_probes",
        "_on_change",
        "_opened",
        "_probes_out",
        "_reopen_at",
        "_rng",
        "_trial",
        "_trial_of",
        "generation",
        "rules",
        "since",
        "state",
    )

    def __init__(
        self,
        rules: BreakerRules,
        rng: Random,
        evidence: Evidence,
        trial_of: Callable[[BreakerRules], Trial],
        on_change: Callable[[BreakerState, BreakerState], None],
        now: float = 0.0,
    ) -> None:
        self.rules = rules
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.since = now
        self._rng = rng
        self._evidence = evidence
        self._trial_of = trial_of
        self._trial = trial_of(rules)
        self._on_change = on_change
        self._opened = 0
        self._probes_out = 0
        self._reopen_at = 0.0
        self._failed_health_probes = 0

    def admits(self, now: float) -> bool:
        """Return whether `admit` would give a permit now."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return now >= self._reopen_at
        return self._probes_out < self.rules.probes

    def admit(self, tenant: str, now: float) -> Permit | None:
        """Return a permit for one call, or None: the caller must not make it."""
        if not self.admits(now):
            return None
        if self.state is BreakerState.OPEN:
            self._move(BreakerState.HALF_OPEN, now)
        probe = self.state is BreakerState.HALF_OPEN
        if probe:
            self._probes_out += 1
        return Permit(tenant, self.generation, probe)

    def settle(self, permit: Permit, outcome: Outcome, now: float) -> None:
        """Take a permit back with what its call showed."""
        if permit.generation != self.generation:
            return
        if permit.probe:
            self._probes_out -= 1
        if outcome is Outcome.IGNORED:
            return
        if self.state is BreakerState.CLOSED:
            if self._evidence.add(permit.tenant, outcome, now):
                self._move(BreakerState.OPEN, now)
            return
        verdict = self._trial.add(permit.tenant, outcome)
        if verdict is not None:
            self._move(verdict, now)

    def health_probed(self, healthy: bool, now: float) -> None:
        """Take in an active health probe: failing ones open the breaker, a good one may half-open it early."""
        if healthy:
            self._failed_health_probes = 0
            self.half_open_early(now)
            return
        self._failed_health_probes += 1
        if self.state is BreakerState.CLOSED and self._failed_health_probes >= self.rules.failed_health_probes:
            self._move(BreakerState.OPEN, now)

    def half_open_early(self, now: float) -> None:
        """Let probes through now, if open."""
        if self.state is BreakerState.OPEN:
            self._move(BreakerState.HALF_OPEN, now)

    def reset(self, now: float) -> None:
        """Close it and forget all evidence, whatever the state."""
        self._failed_health_probes = 0
        self._evidence.clear()
        if self.state is not BreakerState.CLOSED:
            self._move(BreakerState.CLOSED, now)

    def retry_after_s(self, now: float) -> float:
        """Return how long a refused caller should wait, in seconds."""
        if self.state is BreakerState.OPEN:
            return max(0.0, self._reopen_at - now)
        return 0.0 if self.state is BreakerState.CLOSED else self.rules.open_s

    def _move(self, new: BreakerState, now: float) -> None:
        old, self.state = self.state, new
        self.generation += 1
        self.since = now
        self._probes_out = 0
        if new is BreakerState.OPEN:
            nominal = min(self.rules.open_max_s, self.rules.open_s * 2.0 ** min(self._opened, 63))
            self._opened += 1
            self._reopen_at = now + nominal * self._rng.uniform(1 - self.rules.jitter, 1 + self.rules.jitter)
        elif new is BreakerState.HALF_OPEN:
            self._trial = self._trial_of(self.rules)
        else:
            self._opened = 0
            self._evidence.clear()
        self._on_change(old, new)

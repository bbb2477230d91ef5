"""Random histories of calls against a breaker board in virtual time, and an oracle that judges every step.

The oracle knows the rules only as words: it keeps plain lists of what happened and recounts them at every event.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from brain_server.domain.breaker import BreakerRules, BreakerState, Outcome
from brain_server.domain.breaker_board import BoardListener, BreakerBoard, Pass

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
RULES = BreakerRules()


class RuleBrokenError(AssertionError):
    """The board did something that the rules forbid, or failed to do what they ask."""


def require(condition: bool, what: str, *values: object) -> None:
    if not condition:
        raise RuleBrokenError(what.format(*values))


@dataclass
class Shadow:
    """What the oracle knows of one breaker; `shared` chooses the dependency's rules."""

    shared: bool
    state: BreakerState = CLOSED
    generation: int = 0
    since: float = 0.0
    calls: list[tuple[int, str, Outcome]] = field(default_factory=list)
    """(bucket, tenant, outcome) of counted calls since it last closed."""
    row: list[str] = field(default_factory=list)
    """Tenants of the failures since the last answer."""
    probes_out: int = 0
    answers: list[Outcome] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    opened: int = 0

    def moved(self, old: BreakerState, new: BreakerState, now: float) -> None:
        require(old is self.state, "reported leaving {}, was {}", old, self.state)
        legal = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)}
        require((old, new) in legal, "moved from {} to {}", old, new)
        self.state, self.since = new, now
        self.generation += 1
        self.probes_out = 0
        self.answers, self.failing, self.row = [], set(), []
        if new is OPEN:
            self.opened += 1
        if new is CLOSED:
            self.opened, self.calls = 0, []

    def nominal_open_s(self) -> float:
        return min(60.0, 2.0 ** (self.opened - 1))

    def must_refuse(self, now: float) -> bool:
        """Whether the rules forbid a call now, whatever the jitter drew."""
        if self.state is OPEN:
            return now < self.since + 0.8 * self.nominal_open_s() - 1e-9
        return self.state is HALF_OPEN and self.probes_out >= 5

    def must_admit(self, now: float) -> bool:
        """Whether the rules demand that a call is let through now, whatever the jitter drew."""
        if self.state is OPEN:
            return now >= self.since + 1.2 * self.nominal_open_s() + 1e-9
        return self.state is CLOSED or self.probes_out < 5

    def expects(self, tenant: str, outcome: Outcome, now: float) -> BreakerState:
        """The state the rules demand after one counted call of the current generation."""
        if outcome is Outcome.FAILED:
            self.row.append(tenant)
        else:
            self.row = []
        if self.state is HALF_OPEN:
            return self._after_probe(tenant, outcome)
        self.calls.append((int(now), tenant, outcome))
        self.calls = [call for call in self.calls if call[0] > int(now) - 10]
        if self.shared:
            return OPEN if self._tenants_fail() else CLOSED
        outcomes = [outcome for _, _, outcome in self.calls]
        return OPEN if len(self.row) >= 5 or (len(outcomes) >= 20 and bad(outcomes)) else CLOSED

    def _after_probe(self, tenant: str, outcome: Outcome) -> BreakerState:
        if outcome is Outcome.FAILED:
            self.failing.add(tenant)
            give_up = len(self.failing) >= 3 or len(self.row) >= 5 if self.shared else True
            return OPEN if give_up else HALF_OPEN
        self.answers.append(outcome)
        if len(self.answers) < 5:
            return HALF_OPEN
        return OPEN if self.answers.count(Outcome.SLOW) >= 4 else CLOSED

    def _tenants_fail(self) -> bool:
        if len(self.row) >= 5 and len(set(self.row)) >= 3:
            return True
        by_tenant: dict[str, list[Outcome]] = {}
        for _, tenant, outcome in self.calls:
            by_tenant.setdefault(tenant, []).append(outcome)
        failing = sum(bad(outcomes) for outcomes in by_tenant.values())
        return len(self.calls) >= 20 and failing >= 3 and failing >= 0.5 * len(by_tenant)


def bad(outcomes: list[Outcome]) -> bool:
    return outcomes.count(Outcome.FAILED) >= 0.5 * len(outcomes) or outcomes.count(Outcome.SLOW) >= 0.8 * len(outcomes)


class Oracle:
    """Follows a board's transitions and judges each admission and each settled call."""

    def __init__(self) -> None:
        self.now = 0.0
        self.shared = Shadow(shared=True)
        self.tenants: dict[str, Shadow] = {}

    def of(self, tenant: str) -> Shadow:
        return self.tenants.setdefault(tenant, Shadow(shared=False))

    def changed(self, tenant: str | None, old: BreakerState, new: BreakerState) -> None:
        (self.shared if tenant is None else self.of(tenant)).moved(old, new, self.now)

    def forgotten(self, tenant: str) -> None:
        self.tenants.pop(tenant, None)

    def admitted(self, tenant: str, before: tuple[bool, bool], allowed: bool) -> tuple[int, int]:
        """Judge one admission; `before` is (must refuse, must admit) as it stood when asked."""
        must_refuse, must_admit = before
        require(not (allowed and must_refuse), "{} was let through while the rules refuse", tenant)
        require(allowed or not must_admit, "{} was refused while the rules admit", tenant)
        own = self.of(tenant)
        if allowed:
            for shadow in (own, self.shared):
                require(shadow.state is not OPEN, "a call was let through an open breaker")
                shadow.probes_out += shadow.state is HALF_OPEN
        return own.generation, self.shared.generation

    def settle(self, tenant: str, generations: tuple[int, int], outcome: Outcome, act: Callable[[], None]) -> None:
        """Judge what `act`, which settles one call, does to both breakers."""
        expected: list[tuple[Shadow, BreakerState]] = []
        for shadow, generation in zip((self.of(tenant), self.shared), generations, strict=True):
            current = generation == shadow.generation
            if current and shadow.state is HALF_OPEN:
                shadow.probes_out -= 1
            if not current or outcome is Outcome.IGNORED:
                expected.append((shadow, shadow.state))
            else:
                expected.append((shadow, shadow.expects(tenant, outcome, self.now)))
        shared_closes = expected[1][1] is CLOSED and self.shared.state is HALF_OPEN
        act()
        for shadow, state in expected:
            if shared_closes and not shadow.shared and state is OPEN:
                state = HALF_OPEN
            require(shadow.state is state, "after {} it is {}, the rules say {}", outcome, shadow.state, state)


@dataclass(frozen=True)
class Weather:
    """How calls end for a while: chances of failing, being slow, being cancelled or throttled."""

    failed: float = 0.0
    slow: float = 0.0
    ignored: float = 0.0
    only: str = ""
    """With a tenant's name, only its calls are affected."""

    def outcome(self, tenant: str, rng: Random) -> Outcome:
        if self.only and tenant != self.only:
            return Outcome.GOOD
        draw = rng.random()
        for chance, outcome in (
            (self.failed, Outcome.FAILED),
            (self.slow, Outcome.SLOW),
            (self.ignored, Outcome.IGNORED),
        ):
            if draw < chance:
                return outcome
            draw -= chance
        return Outcome.GOOD


WEATHERS = (
    Weather(),
    Weather(failed=1.0),
    Weather(failed=0.5),
    Weather(failed=0.3, ignored=0.3),
    Weather(slow=0.9),
    Weather(ignored=1.0),
    Weather(failed=0.75, only="t0"),
    Weather(failed=1.0, only="t0"),
    Weather(failed=0.1, slow=0.1, ignored=0.1),
)


def play(seed: int, board_of: Callable[[Random, BoardListener], BreakerBoard], calls: int = 60) -> Oracle:
    """Play one history; raise RuleBrokenError at the first step the rules forbid."""
    rng = Random(seed)
    oracle = Oracle()
    board = board_of(Random(seed + 1), oracle)
    tenants = [f"t{number}" for number in range(rng.choice((1, 2, 3, 5)))]
    gap_s = rng.choice((0.02, 0.2, 1.0))
    flight_s = rng.choice((0.01, 0.5, 4.0))
    weather = rng.choice(WEATHERS)
    pending: list[tuple[float, int, str, tuple[int, int], Pass, Outcome]] = []
    now, made = 0.0, 0

    def settle_until(limit: float) -> None:
        while pending and pending[0][0] <= limit:
            at, _, tenant, generations, call, outcome = heapq.heappop(pending)
            oracle.now = at
            oracle.settle(tenant, generations, outcome, partial(board.settle, call, outcome, at))

    for _ in range(calls):
        now += rng.expovariate(1.0 / gap_s) if rng.random() > 0.05 else rng.uniform(0, 90)
        settle_until(now)
        if rng.random() < 0.08:
            weather = rng.choice(WEATHERS)
        oracle.now = now
        for _ in range(rng.choice((1, 1, 1, 12))):
            tenant = rng.choice(tenants)
            own = oracle.of(tenant)
            before = (
                own.must_refuse(now) or oracle.shared.must_refuse(now),
                own.must_admit(now) and oracle.shared.must_admit(now),
            )
            answer = board.admit(tenant, now)
            generations = oracle.admitted(tenant, before, isinstance(answer, Pass))
            if isinstance(answer, Pass):
                ends, outcome = now + rng.uniform(0, flight_s), weather.outcome(tenant, rng)
                made += 1
                pending.append((ends, made, tenant, generations, answer, outcome))
        heapq.heapify(pending)
    settle_until(float("inf"))
    return oracle


def sound_board(rng: Random, listener: BoardListener) -> BreakerBoard:
    return BreakerBoard(RULES, rng, listener)

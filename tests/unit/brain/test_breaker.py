"""The breakers around calls: when they open, whom they let through, what they show."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from brain_server.domain.breaker import BreakerRules, BreakerState, Outcome, classify
from brain_server.gateway.breaker import Breakers
from brain_server.stores.personas_file import PersonasFile
from soma_contract.errors import (
    CircuitBreakerOpenError,
    Code,
    ComponentUnavailableError,
    MemoryNotFoundError,
    OverloadedError,
    SomaError,
)
from tests.unit.brain.conftest import ManualClock, tenant

ALICE, BOB, CAROL, DAVE = (tenant(name) for name in ("alice", "bob", "carol", "dave"))
DOWN = ComponentUnavailableError(component="memory")


class Recorder:
    """Keeps what the breakers report."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, str, str]] = []
        self.refused: list[tuple[str, str, str]] = []

    def breaker_changed(self, component: str, level: str, old: str, new: str) -> None:
        self.changes.append((component, level, old, new))

    def breaker_refused(self, component: str, level: str, method: str) -> None:
        self.refused.append((component, level, method))


@pytest.fixture
def metrics() -> Recorder:
    return Recorder()


@pytest.fixture
def breakers(clock: ManualClock, metrics: Recorder) -> Breakers:
    return Breakers("memory", clock=clock, rng=Random(7), metrics=metrics)


async def call(breakers: Breakers, who: object, error: SomaError | None = None) -> bool:
    """Make one call; return whether it was let through."""
    try:
        async with breakers.permit(who, "Get", 1.0) as permit:  # type: ignore[arg-type]
            if error is None:
                permit.succeeded()
            else:
                permit.failed(error)
    except CircuitBreakerOpenError:
        return False
    return True


def dependency(breakers: Breakers) -> str:
    return breakers.state.value


def states(breakers: Breakers) -> dict[str, BreakerState]:
    return {status.tenant: status.state for status in breakers.list()}


@pytest.mark.parametrize(
    ("failing_every", "opens_after"),
    [(1, 5), (2, 20), (3, None)],
    ids=["down", "half of them fail", "a third fail: stays closed"],
)
async def test_it_opens_within_twenty_calls(breakers: Breakers, failing_every: int, opens_after: int | None) -> None:
    made = 0
    while made < 100 and await call(breakers, ALICE, DOWN if made % failing_every == 0 else None):
        made += 1
    assert made == (opens_after or 100)


async def test_overlapping_slow_calls_open_it_at_the_twentieth(clock: ManualClock, breakers: Breakers) -> None:
    calls = [breakers.permit(ALICE, "Get", 1.0) for _ in range(20)]
    for each in calls:
        await each.__aenter__()
    clock.advance(0.85)
    for each in calls[:19]:
        each.succeeded()
    assert states(breakers) == {"": BreakerState.CLOSED}
    calls[19].succeeded()
    assert states(breakers) == {"": BreakerState.CLOSED, "alice": BreakerState.OPEN}


async def test_of_a_thousand_concurrent_calls_at_most_five_are_let_through_half_open(
    clock: ManualClock, breakers: Breakers
) -> None:
    for _ in range(5):
        await call(breakers, ALICE, DOWN)
    clock.advance(2.0)
    inside = most = 0
    release = asyncio.Event()
    refused = 0

    async def probe() -> None:
        nonlocal inside, most, refused
        try:
            async with breakers.permit(ALICE, "Get", 1.0):
                inside += 1
                most = max(most, inside)
                await release.wait()
                inside -= 1
        except CircuitBreakerOpenError:
            refused += 1
            if refused == 995:
                release.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(1_000):
            tasks.create_task(probe())
    assert (most, refused) == (5, 995)
    assert states(breakers) == {"": BreakerState.CLOSED}


async def test_ten_thousand_cancelled_calls_do_not_open_it(breakers: Breakers) -> None:
    async def hang() -> None:
        async with breakers.permit(ALICE, "Get", 1.0):
            await asyncio.Event().wait()

    for _ in range(100):
        tasks = [asyncio.ensure_future(hang()) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert states(breakers) == {"": BreakerState.CLOSED}
    assert await call(breakers, ALICE)


async def test_a_cancelled_probe_gives_its_permit_back(clock: ManualClock, breakers: Breakers) -> None:
    for _ in range(5):
        await call(breakers, ALICE, DOWN)
    clock.advance(2.0)
    for _ in range(50):
        with pytest.raises(asyncio.CancelledError):
            async with breakers.permit(ALICE, "Get", 1.0):
                raise asyncio.CancelledError
    assert states(breakers)["alice"] is BreakerState.HALF_OPEN
    for _ in range(5):
        assert await call(breakers, ALICE)
    assert states(breakers) == {"": BreakerState.CLOSED}


async def test_one_bad_tenant_does_not_close_the_door_on_others(clock: ManualClock, breakers: Breakers) -> None:
    for _ in range(500):
        await call(breakers, ALICE, DOWN)
        clock.advance(0.5)
        assert await call(breakers, BOB)
        assert await call(breakers, CAROL)
        assert await call(breakers, DAVE)
    assert set(states(breakers)) == {"", "alice"}
    assert dependency(breakers) == "closed"


async def test_a_dead_server_is_known_after_three_tenants(breakers: Breakers) -> None:
    failed = 0
    for who in (ALICE, BOB, CAROL):
        while breakers.would_admit(who):
            await call(breakers, who, DOWN)
            failed += 1
    assert dependency(breakers) == "open"
    assert failed == 11, "five of the first, five of the second, one of the third"
    assert not await call(breakers, DAVE), "a tenant that never failed is spared the discovery"


async def test_failing_health_probes_open_it_without_any_call(clock: ManualClock, breakers: Breakers) -> None:
    breakers.health_probed(healthy=False)
    assert await call(breakers, ALICE)
    breakers.health_probed(healthy=False)
    assert not await call(breakers, ALICE)
    breakers.health_probed(healthy=True)
    assert dependency(breakers) == "half-open"
    for _ in range(5):
        assert await call(breakers, ALICE)
    assert dependency(breakers) == "closed"


async def test_a_recovered_server_lets_tenants_back_without_their_doubled_waits(
    clock: ManualClock, breakers: Breakers
) -> None:
    for _ in range(6):
        for who in (ALICE, BOB, CAROL):
            for _ in range(5):
                await call(breakers, who, DOWN)
        clock.advance(100.0)
    for who in (ALICE, BOB, CAROL):
        await call(breakers, who, DOWN)
    assert dependency(breakers) == "open"
    breakers.health_probed(healthy=True)
    for _ in range(5):
        assert await call(breakers, DAVE)
    assert dependency(breakers) == "closed"
    assert [await call(breakers, who) for who in (ALICE, BOB, CAROL)] == [True, True, True]


async def test_the_open_time_doubles_to_a_minute_with_jitter(clock: ManualClock) -> None:
    waits = []
    breakers = Breakers("memory", BreakerRules(consecutive=1), clock=clock, rng=Random(3))
    for _ in range(9):
        await call(breakers, ALICE, DOWN)
        with pytest.raises(CircuitBreakerOpenError) as refusal:
            async with breakers.permit(ALICE, "Get"):
                pass
        assert refusal.value.retry_after_s is not None
        waits.append(refusal.value.retry_after_s)
        clock.advance(refusal.value.retry_after_s)
    for wait, nominal in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert 0.8 * nominal <= wait <= 1.2 * nominal
    assert len({wait % 1 for wait in waits}) == len(waits)


async def test_jumps_of_the_wall_clock_change_nothing(clock: ManualClock, breakers: Breakers) -> None:
    for _ in range(5):
        await call(breakers, ALICE, DOWN)
    for jump in (timedelta(hours=2), timedelta(hours=-4), timedelta(days=400)):
        clock.wall += jump
        assert not await call(breakers, ALICE)
    clock.at_s += 1.3
    assert await call(breakers, ALICE)


async def test_pybreaker_shows_the_state_and_its_listeners_feed_the_metrics(
    clock: ManualClock, breakers: Breakers, metrics: Recorder
) -> None:
    breakers.health_probed(healthy=False)
    breakers.health_probed(healthy=False)
    assert breakers.visible.current_state == "open"
    await call(breakers, ALICE)
    clock.advance(2.0)
    await call(breakers, ALICE)
    assert breakers.visible.current_state == "half-open"
    for _ in range(5):
        await call(breakers, BOB)
    assert breakers.visible.current_state == "closed"
    assert metrics.changes == [
        ("memory", "dependency", "closed", "open"),
        ("memory", "dependency", "open", "half-open"),
        ("memory", "dependency", "half-open", "closed"),
    ]
    assert metrics.refused == [("memory", "dependency", "Get")]


async def test_reset_closes_one_tenant_or_all(breakers: Breakers) -> None:
    for who in (ALICE, BOB):
        for _ in range(5):
            await call(breakers, who, DOWN)
    breakers.reset(ALICE)
    assert states(breakers) == {"": BreakerState.CLOSED, "bob": BreakerState.OPEN}
    breakers.reset()
    assert states(breakers) == {"": BreakerState.CLOSED}


async def test_names_of_tenants_do_not_grow_its_memory(clock: ManualClock) -> None:
    breakers = Breakers("memory", clock=clock, max_tenants=100)
    for number in range(1_000):
        await call(breakers, tenant(f"t{number}"))
    assert len(breakers._board.tenants) == 100


async def test_a_tenant_can_have_thresholds_of_its_own(clock: ManualClock) -> None:
    breakers = Breakers("memory", rules_of={"alice": BreakerRules(consecutive=2)}.get, clock=clock)
    for _ in range(2):
        await call(breakers, ALICE, DOWN)
        await call(breakers, BOB, DOWN)
    assert set(states(breakers)) == {"", "alice"}


async def test_thresholds_out_of_the_tenants_file_hold_from_the_next_time_the_breaker_is_closed(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text("tenants: {alice: {breaker: {consecutive: 2}}}")
    breakers = Breakers("memory", rules_of=PersonasFile(path, clock).breaker_rules, clock=clock)
    await call(breakers, ALICE, DOWN)
    await call(breakers, ALICE, DOWN)
    assert set(states(breakers)) == {"", "alice"}
    path.write_text("tenants: {alice: {breaker: {consecutive: 4}}}  # longer than before")
    clock.advance(2.0)
    breakers.reset(ALICE)
    for _ in range(3):
        await call(breakers, ALICE, DOWN)
    assert set(states(breakers)) == {""}
    await call(breakers, ALICE, DOWN)
    assert set(states(breakers)) == {"", "alice"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DOWN, Outcome.FAILED),
        (MemoryNotFoundError(), Outcome.GOOD),
        (OverloadedError(), Outcome.IGNORED),
    ],
)
def test_client_errors_count_as_answers_and_throttling_not_at_all(error: SomaError, outcome: Outcome) -> None:
    assert classify(error.code, 0.1, 1.0, BreakerRules()) is outcome


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_an_outcome(code: Code) -> None:
    failures = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS}
    ignored = {Code.CANCELLED, Code.RESOURCE_EXHAUSTED}
    expected = Outcome.FAILED if code in failures else Outcome.IGNORED if code in ignored else Outcome.GOOD
    assert classify(code, 0.1, 1.0, BreakerRules()) is expected


def test_a_deadline_below_the_floor_says_nothing() -> None:
    assert classify(Code.DEADLINE_EXCEEDED, 0.05, 0.05, BreakerRules()) is Outcome.IGNORED
    assert classify(Code.OK, 0.049, 0.05, BreakerRules()) is Outcome.GOOD


async def test_a_tenant_is_let_back_when_the_server_was_ill_and_not_when_it_was_the_only_one_to_fail(
    clock: ManualClock, breakers: Breakers
) -> None:
    for _ in range(5):
        await call(breakers, ALICE, DOWN)
    for _ in range(6):
        clock.advance(100.0)
        await call(breakers, ALICE, DOWN)
    assert dependency(breakers) == "closed"
    breakers.health_probed(healthy=True)
    assert not await call(breakers, ALICE), "the server is well, so its failures are this tenant's own"
    breakers.health_probed(healthy=False)
    breakers.health_probed(healthy=True)
    assert await call(breakers, ALICE)

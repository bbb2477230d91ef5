"""Delivery: STORED or QUEUED told truthfully, order kept, nothing lost, nobody starved."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_server.domain import ordering as ordering_module
from brain_server.domain.entry import Entry, EntryState
from brain_server.domain.ordering import Ordering
from brain_server.domain.retrying import MAX_AGE_S, Fate
from brain_server.gateway import delivery as delivery_module
from brain_server.gateway.delivery import Delivery, Queued, Stored
from brain_server.gateway.outbox import Outbox, OutboxBounds
from brain_server.stores.inmemory.entries import InMemoryOutbox
from soma_contract.errors import (
    CircuitBreakerOpenError,
    ComponentUnavailableError,
    FieldViolationError,
    InternalError,
    MemoryNotFoundError,
    OutboxFullError,
    QuotaExceededError,
    RequestIdReusedError,
    SomaError,
    TenantSuspendedError,
    WriteConflictError,
)
from tests.unit.brain.conftest import tenant
from tests.unit.brain.outbox_world import MemoryServer, draft
from tests.unit.brain.virtual_time import LoopClock, run_virtually

ALICE, BOB = tenant("alice"), tenant("bob")


@asynccontextmanager
async def delivering(
    server: MemoryServer,
    file: InMemoryOutbox | None = None,
    *,
    most_in_flight: int = 64,
    bounds: OutboxBounds | None = None,
    max_age_s: float = MAX_AGE_S,
) -> AsyncIterator[Delivery]:
    clock = LoopClock()
    outbox = Outbox(file or InMemoryOutbox(), clock=clock, bounds=bounds)
    await outbox.load()
    delivery = Delivery(outbox, server, clock=clock, rng=Random(1), most_in_flight=most_in_flight, max_age_s=max_age_s)
    async with delivery:
        yield delivery


def test_a_healthy_write_is_stored() -> None:
    async def story() -> None:
        server = MemoryServer()
        async with delivering(server) as delivery:
            answer = await delivery.submit(ALICE, draft(1), deadline_s=1.0)
            assert isinstance(answer, Stored)
            assert answer.result == "stored r1"
            assert delivery.outbox.depth().pending == 0

    run_virtually(story())


def test_a_write_during_an_outage_is_queued_at_once_and_stored_afterwards() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        async with delivering(server) as delivery:
            clock = LoopClock()
            started = clock.monotonic()
            answers = [await delivery.submit(ALICE, draft(number), deadline_s=1.0) for number in range(50)]
            assert all(isinstance(answer, Queued) for answer in answers)
            assert clock.monotonic() - started < 0.1
            await asyncio.sleep(3_600)
            assert server.sent < 400, "an outage costs a few calls a minute"
            assert delivery.outbox.depth().pending == 50
            server.down = False
            delivery.wake()
            assert await delivery.drain(1.0)
            assert sorted(server.requests()) == sorted(f"r{number}" for number in range(50))
            assert delivery.outbox.depth().dead == 0

    run_virtually(story())


def test_delivery_finds_out_by_itself_that_the_outage_is_over() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        async with delivering(server) as delivery:
            for number in range(200):
                await delivery.submit(ALICE, draft(number))
            await asyncio.sleep(86_400)
            server.down = False
            assert await delivery.drain(31.0)
            assert delivery.outbox.depth().dead == 0

    run_virtually(story())


def test_a_slow_server_makes_the_caller_wait_no_longer_than_its_deadline() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.latency_s = lambda entry: 5.0
        async with delivering(server) as delivery:
            clock = LoopClock()
            started = clock.monotonic()
            assert isinstance(await delivery.submit(ALICE, draft(1), deadline_s=1.0), Queued)
            assert clock.monotonic() - started == pytest.approx(0.95)
            assert await delivery.drain(10.0)
            assert (server.sent, server.requests()) == (1, ["r1"])

    run_virtually(story())


def test_a_refused_write_is_told_to_its_caller_and_leaves_no_dead_letter() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.refuses = lambda entry: FieldViolationError.at("memory.text", "is too long")
        async with delivering(server) as delivery:
            with pytest.raises(FieldViolationError):
                await delivery.submit(ALICE, draft(1), deadline_s=1.0)
            assert (delivery.outbox.depth().pending, delivery.outbox.depth().dead) == (0, 0)

    run_virtually(story())


def test_a_refused_write_that_nobody_waits_for_becomes_a_dead_letter_and_unblocks_the_next() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        async with delivering(server) as delivery:
            await delivery.submit(ALICE, draft(1, "m"))
            await delivery.submit(ALICE, draft(2, "m"))
            server.down = False
            server.refuses = lambda entry: FieldViolationError.at("x", "bad") if entry.request_id == "r1" else None
            delivery.wake()
            assert await delivery.drain(1.0)
            assert server.requests() == ["r2"]
            (dead,) = delivery.outbox.dead_letters(ALICE)
            assert dead.request_id == "r1"
            assert dead.rejection is not None
            assert dead.rejection.reason == "FIELD_VIOLATION"
            with pytest.raises(FieldViolationError):
                await delivery.submit(ALICE, draft(1, "m"))
            server.refuses = lambda entry: None
            await delivery.outbox.replay(ALICE, dead.entry_id)
            assert await delivery.drain(1.0)
            assert server.requests() == ["r2", "r1"]

    run_virtually(story())


def test_a_repeated_request_finds_its_entry_and_another_one_under_its_id_is_refused() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.latency_s = lambda entry: 0.2
        async with delivering(server) as delivery:
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(delivery.submit(ALICE, draft(1), deadline_s=1.0)) for _ in range(10)]
            assert {type(call.result()) for call in calls} == {Stored}
            assert server.sent == 1
            server.down = True
            await delivery.submit(ALICE, draft(2))
            again = await delivery.submit(ALICE, draft(2))
            assert again.entry.sequence == 2
            assert delivery.outbox.depth().pending == 1
            with pytest.raises(RequestIdReusedError):
                await delivery.submit(ALICE, draft(2, payload=b'{"other": 1}'))
            assert isinstance(await delivery.submit(BOB, draft(2, payload=b'{"other": 1}')), Queued)

    run_virtually(story())


def test_writes_to_one_memory_arrive_in_order_and_others_do_not_wait() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.latency_s = lambda entry: 1.0 if entry.request_id == "r1" else 0.01
        async with delivering(server) as delivery, asyncio.TaskGroup() as tasks:
            for number, memory_id in ((1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "b")):
                tasks.create_task(delivery.submit(ALICE, draft(number, memory_id), deadline_s=30.0))
        assert server.requests() == ["r3", "r5", "r1", "r2", "r4"]

    run_virtually(story())


def test_a_link_waits_for_both_of_its_ends() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            for each in (
                draft(1, "a"),
                draft(2, "b"),
                draft(3, "a", "b", operation="link"),
                draft(4, "b"),
                draft(5, "a"),
            ):
                await delivery.submit(ALICE, each)
        server.down = False
        server.rng = Random(5)
        server.latency_s = lambda entry: server.rng.random()
        async with delivering(server, file) as delivery:
            assert await delivery.drain(10.0)
        order = server.requests()
        assert {"r1", "r2"} == set(order[:2])
        assert order[2] == "r3"
        assert {"r4", "r5"} == set(order[3:])

    run_virtually(story())


def test_a_link_appended_before_its_end_lets_the_end_go_first() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            await delivery.submit(ALICE, draft(1, "a", "b", operation="link"))
            await delivery.submit(ALICE, draft(2, "a"))
            await delivery.submit(ALICE, draft(3, "b"))
        server.down = False

        def missing(entry: object) -> SomaError | None:
            is_link = getattr(entry, "operation", "") == "link"
            return MemoryNotFoundError() if is_link and len(server.applied) < 2 else None

        server.refuses = missing
        async with delivering(server, file) as delivery:
            assert await delivery.drain(10.0)
            assert server.requests()[-1] == "r1"
            assert delivery.outbox.depth().dead == 0

    run_virtually(story())


def test_a_link_whose_end_never_comes_is_a_dead_letter() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        async with delivering(server) as delivery:
            await delivery.submit(ALICE, draft(1, "a", "b", operation="link"))
            server.down = False
            server.refuses = lambda entry: MemoryNotFoundError()
            assert await delivery.drain(60.0)
            assert [entry.request_id for entry in delivery.outbox.dead_letters(ALICE)] == ["r1"]

    run_virtually(story())


def test_an_internal_error_is_blamed_on_the_entry_only_while_others_succeed() -> None:
    async def story() -> None:
        server = MemoryServer()
        poison = {"r0"}
        server.refuses = lambda entry: InternalError() if entry.request_id in poison else None
        async with delivering(server) as delivery:
            assert isinstance(await delivery.submit(ALICE, draft(0), deadline_s=1.0), Queued)
            await asyncio.sleep(86_400)
            assert delivery.outbox.depth().dead == 0, "nothing else succeeded, so it may be the server"
            for number in range(1, 3_000):
                assert isinstance(await delivery.submit(ALICE, draft(number), deadline_s=5.0), Stored)
                await asyncio.sleep(0.2)
                if delivery.outbox.depth().dead:
                    break
            (dead,) = delivery.outbox.dead_letters()
            assert (dead.request_id, dead.attempts, dead.state) == ("r0", 10, EntryState.DEAD)

    run_virtually(story())


@pytest.mark.parametrize(
    "error",
    [
        ComponentUnavailableError(component="memory"),
        CircuitBreakerOpenError(component="memory", retry_after_s=20.0),
        QuotaExceededError(),
        TenantSuspendedError(),
        WriteConflictError(),
        InternalError(),
    ],
    ids=lambda error: error.reason,
)
def test_an_outage_of_a_day_uses_up_nothing(error: SomaError) -> None:
    async def story() -> None:
        server = MemoryServer()
        server.refuses = lambda entry: error
        async with delivering(server) as delivery:
            for number in range(20):
                await delivery.submit(ALICE, draft(number))
            await asyncio.sleep(86_400)
            assert (delivery.outbox.depth().pending, delivery.outbox.depth().dead) == (20, 0)
            server.refuses = lambda entry: None
            assert await delivery.drain(31.0)
            assert sorted(server.requests()) == sorted(f"r{number}" for number in range(20))

    run_virtually(story())


def test_an_entry_older_than_the_age_limit_is_not_sent_any_more() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        async with delivering(server, max_age_s=3_600.0) as delivery:
            await delivery.submit(ALICE, draft(1))
            await asyncio.sleep(3_700)
            server.down = False
            assert await delivery.drain(31.0)
            (dead,) = delivery.outbox.dead_letters()
            assert dead.rejection is not None
            assert (dead.rejection.reason, server.requests()) == ("AGE_LIMIT", [])

    run_virtually(story())


def test_replay_is_paced_and_one_tenants_backlog_does_not_delay_another() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            for number in range(2_000):
                await delivery.submit(ALICE, draft(number))
            for number in range(2_000, 2_010):
                await delivery.submit(BOB, draft(number))
        server.down = False
        server.latency_s = lambda entry: 0.05
        server.most_in_flight = 0
        server.most_by_tenant.clear()
        async with delivering(server, file) as delivery:
            assert await delivery.drain(600.0)
        assert server.most_in_flight <= 64
        assert server.most_by_tenant["alice"] <= 48
        last_of_bob = max(place for place, entry in enumerate(server.applied) if entry.tenant == BOB)
        assert last_of_bob < 64

    run_virtually(story())


def test_a_tenant_whose_writes_hang_does_not_hold_up_others() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            for number in range(200):
                await delivery.submit(ALICE, draft(number))
            for number in range(200, 400):
                await delivery.submit(BOB, draft(number))
        server.down = False
        server.latency_s = lambda entry: 10_000.0 if entry.tenant == ALICE else 0.01
        async with delivering(server, file) as delivery:
            await asyncio.sleep(1.0)
            assert delivery.outbox.depth(BOB).pending == 0

    run_virtually(story())


def test_the_pace_halves_when_latency_doubles_and_comes_back() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            for number in range(6_000):
                await delivery.submit(tenant(f"t{number % 10}"), draft(number))
        server.down = False
        server.latency_s = lambda entry: 0.01
        async with delivering(server, file) as delivery:
            await asyncio.sleep(0.2)
            assert delivery.pace.limit == 64
            server.latency_s = lambda entry: 0.5
            await asyncio.sleep(2.0)
            assert delivery.pace.limit < 64
            server.latency_s = lambda entry: 0.01
            assert await delivery.drain(600.0)
            assert delivery.pace.limit == 64

    run_virtually(story())


def test_an_erase_drops_what_was_written_before_it_and_nothing_else() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            for number in range(10):
                await delivery.submit(ALICE, draft(number, "m"))
                await delivery.submit(BOB, draft(number, "m"))
            assert await delivery.outbox.fence(ALICE, 1) == 10
            assert delivery.outbox.depth(ALICE).pending == 0
            await delivery.submit(ALICE, draft(99, "m"))
        server.down = False
        async with delivering(server, file) as delivery:
            assert delivery.outbox.epoch(ALICE) == 1
            assert await delivery.drain(31.0)
        assert server.requests(ALICE) == ["r99"]
        assert server.requests(BOB) == [f"r{number}" for number in range(10)]

    run_virtually(story())


def test_bounds_refuse_before_acknowledging() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file, bounds=OutboxBounds(rows=3, payload_bytes=100)) as delivery:
            with pytest.raises(OutboxFullError):
                await delivery.submit(BOB, draft(1, payload=b"x" * 101))
            for number in range(3):
                await delivery.submit(ALICE, draft(number))
            with pytest.raises(OutboxFullError) as full:
                await delivery.submit(ALICE, draft(9))
            assert full.value.metadata["scope"] == "rows"
            assert isinstance(await delivery.submit(BOB, draft(9)), Queued)
            file.free = 1024**3 - 1
            await asyncio.sleep(1.0)
            with pytest.raises(OutboxFullError) as full:
                await delivery.submit(BOB, draft(10))
            assert full.value.metadata["scope"] == "disk"
            assert isinstance(await delivery.submit(BOB, draft(9)), Queued), "a repeated request is still found"

    run_virtually(story())


def test_a_write_that_could_not_be_kept_is_not_acknowledged() -> None:
    async def story() -> None:
        server = MemoryServer()
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            file.failure = ComponentUnavailableError(component="outbox")
            with pytest.raises(ComponentUnavailableError):
                await delivery.submit(ALICE, draft(1))
            assert (delivery.outbox.depth().pending, server.sent) == (0, 0)
            file.failure = None
            assert isinstance(await delivery.submit(ALICE, draft(1)), Stored)

    run_virtually(story())


def test_the_pending_writes_of_a_memory_can_be_looked_up() -> None:
    async def story() -> None:
        server = MemoryServer()
        server.down = True
        file = InMemoryOutbox()
        async with delivering(server, file) as delivery:
            for each in (draft(1, "a", payload=b"one"), draft(2, "b"), draft(3, "a", "b", operation="link")):
                await delivery.submit(ALICE, each)
        outbox = Outbox(file)
        await outbox.load()
        assert [entry.request_id for entry in outbox.touching(ALICE, "a")] == ["r1", "r3"]
        assert [entry.request_id for entry in outbox.pending(ALICE)] == ["r1", "r2", "r3"]
        assert outbox.touching(BOB, "a") == ()
        assert await outbox.payload(outbox.touching(ALICE, "a")[0]) == b"one"

    run_virtually(story())


async def history(seed: int) -> None:
    """Writes, links, lost requests, lost replies, outages, brain restarts: the end must always be the same."""
    rng = Random(seed)
    server = MemoryServer(rng)
    server.latency_s = lambda entry: rng.choice((0.001, 0.01, 0.3, 3.0))
    server.loses_requests = rng.choice((0.0, 0.1, 0.5))
    server.loses_replies = rng.choice((0.0, 0.1, 0.5))
    file = InMemoryOutbox()
    acknowledged: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    number = 0
    memories = [f"m{n}" for n in range(rng.choice((2, 5, 30)))]

    async def write(delivery: Delivery, who: int, number: int) -> None:
        touched = rng.sample(memories, rng.choice((1, 1, 1, 2)))
        name = tenant(f"t{who}")
        each = draft(number, *touched)
        acknowledged[name.name].append((each.request_id, *touched))
        await delivery.submit(name, each, deadline_s=rng.choice((0.06, 0.5, 5.0)))

    for _ in range(rng.choice((1, 2, 4))):
        places = rng.choice((1, 4, 64))
        async with delivering(server, file, most_in_flight=places) as delivery, asyncio.TaskGroup() as tasks:
            for _ in range(rng.choice((5, 40))):
                number += 1
                tasks.create_task(write(delivery, rng.randrange(3), number))
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.choice((0.01, 1.0, 40.0)))
                server.down = rng.random() < 0.3
    server.down = False
    server.loses_requests = server.loses_replies = 0.0
    async with delivering(server, file) as delivery:
        assert await delivery.drain(600.0)
        assert delivery.outbox.depth().dead == 0

    assert max(Counter((e.tenant.name, e.request_id) for e in server.applied).values()) == 1
    for name, writes in acknowledged.items():
        arrived = server.requests(tenant(name))
        assert sorted(arrived) == sorted(request for request, *_ in writes)
        for memory_id in memories:
            expected = [request for request, *touched in writes if memory_id in touched]
            assert [request for request in arrived if request in set(expected)] == expected


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_under_losses_outages_and_restarts_each_write_arrives_once_and_in_order(seed: int) -> None:
    run_virtually(history(seed))


def sends_whatever_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Ordering.add

    def add(ordering: Ordering, entry: Entry) -> bool:
        original(ordering, entry)
        ordering._behind[entry.sequence] = 0
        return True

    monkeypatch.setattr(Ordering, "add", add)
    monkeypatch.setattr(Ordering, "remove", forget)


def forget(ordering: Ordering, entry: Entry) -> list[Entry]:
    ordering._behind.pop(entry.sequence, None)
    ordering._entries.pop(entry.sequence, None)
    return []


def looks_at_one_end_of_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering_module, "_keys", lambda entry: [(entry.tenant.name, entry.touched[0])])


def counts_an_outage_as_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "fate_of", lambda error: Fate.SUSPECT)
    monkeypatch.setattr(Delivery, "_suspect", lambda delivery, entry: replace(entry, attempts=entry.attempts + 5))


def settles_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Delivery._start

    def start(delivery: Delivery, entry: Entry, *, live: bool) -> None:
        delivery.outbox._file.settle(entry)
        original(delivery, entry, live=live)

    monkeypatch.setattr(Delivery, "_start", start)


def server_applies_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryServer, "remembers_requests", False)


@pytest.mark.parametrize(
    "fault",
    [
        sends_whatever_is_there,
        looks_at_one_end_of_a_link,
        counts_an_outage_as_attempts,
        settles_before_it_is_stored,
        server_applies_twice,
    ],
)
def test_the_histories_convict_a_faulty_delivery(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)

    def play_many() -> None:
        for seed in range(60):
            run_virtually(history(seed))

    with pytest.raises(AssertionError):
        play_many()

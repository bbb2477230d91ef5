"""A caller whose answer was lost repeats its request: what was delivered is not put in the line again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random

import pytest

from brain_server.domain.settled import OWN_PREFIX, Settled, SettledRequests
from brain_server.gateway.delivery import Delivery, Queued, Stored
from brain_server.gateway.outbox import Outbox
from brain_server.stores.inmemory.entries import InMemoryOutbox
from soma_contract.errors import FieldViolationError, RequestIdReusedError
from tests.unit.brain.conftest import tenant
from tests.unit.brain.outbox_world import MemoryServer, draft
from tests.unit.brain.virtual_time import START, LoopClock, run_virtually

ALICE = tenant("alice")


@asynccontextmanager
async def delivering(server: MemoryServer, file: InMemoryOutbox) -> AsyncIterator[Delivery]:
    clock = LoopClock()
    outbox = Outbox(file, clock=clock)
    await outbox.load()
    async with Delivery(outbox, server, clock=clock, rng=Random(1)) as delivery:
        yield delivery


async def overwritten(delivery: Delivery) -> None:
    """Two writes of one memory, both stored."""
    for number in (1, 2):
        assert isinstance(await delivery.submit(ALICE, draft(number, "m"), deadline_s=1.0), Stored)


def on_top(delivery: Delivery) -> list[str]:
    """The requests that reads of the memory are shown as waiting."""
    return [entry.request_id for entry in delivery.outbox.touching(ALICE, "m")]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_repeated_request_does_not_stand_over_what_was_written_since(restarted: bool) -> None:
    async def story() -> None:
        server, file = MemoryServer(), InMemoryOutbox()
        async with delivering(server, file) as delivery:
            await overwritten(delivery)
            if not restarted:
                await repeated(server, delivery)
        if restarted:
            async with delivering(server, file) as delivery:
                await repeated(server, delivery)

    async def repeated(server: MemoryServer, delivery: Delivery) -> None:
        server.down = True
        assert isinstance(await delivery.submit(ALICE, draft(1, "m"), deadline_s=1.0), Queued)
        assert (on_top(delivery), delivery.outbox.depth().pending) == ([], 0)
        server.down = False
        answer = await delivery.submit(ALICE, draft(1, "m"), deadline_s=1.0)
        assert isinstance(answer, Stored)
        assert (answer.result, server.requests()) == ("stored r1", ["r1", "r2"])

    run_virtually(story())


def test_a_brain_that_forgot_what_it_delivered_would_show_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SettledRequests, "find", lambda self, tenant, request_id: None)

    async def story() -> None:
        server = MemoryServer()
        async with delivering(server, InMemoryOutbox()) as delivery:
            await overwritten(delivery)
            server.down = True
            await delivery.submit(ALICE, draft(1, "m"), deadline_s=1.0)
            assert on_top(delivery) == ["r1"]

    run_virtually(story())


def test_another_request_under_the_id_of_a_delivered_one_is_refused() -> None:
    async def story() -> None:
        async with delivering(MemoryServer(), InMemoryOutbox()) as delivery:
            await overwritten(delivery)
            with pytest.raises(RequestIdReusedError):
                await delivery.submit(ALICE, draft(1, "m", payload=b'{"other": 1}'), deadline_s=1.0)

    run_virtually(story())


def test_a_slow_answer_to_a_repeated_request_keeps_nobody_waiting() -> None:
    async def story() -> None:
        server = MemoryServer()
        async with delivering(server, InMemoryOutbox()) as delivery:
            await overwritten(delivery)
            server.latency_s = lambda entry: 60.0
            async with asyncio.timeout(1.0):
                assert isinstance(await delivery.submit(ALICE, draft(1, "m"), deadline_s=1.0), Queued)

    run_virtually(story())


def test_what_was_refused_may_be_asked_again() -> None:
    async def story() -> None:
        server = MemoryServer()
        async with delivering(server, InMemoryOutbox()) as delivery:
            server.refuses = lambda entry: FieldViolationError.at("memory.text", "is empty")
            with pytest.raises(FieldViolationError):
                await delivery.submit(ALICE, draft(1, "m"), deadline_s=1.0)
            server.refuses = lambda entry: None
            assert isinstance(await delivery.submit(ALICE, draft(1, "m"), deadline_s=1.0), Stored)
            assert server.requests() == ["r1"]

    run_virtually(story())


def test_an_erase_forgets_delivered_requests_too() -> None:
    async def story() -> None:
        file = InMemoryOutbox()
        async with delivering(MemoryServer(), file) as delivery:
            await overwritten(delivery)
            await delivery.outbox.fence(ALICE, 1)
            assert delivery.outbox.delivered_before(ALICE, draft(1, "m")) is None
        assert (await file.load()).settled == ()

    run_virtually(story())


def test_writes_past_the_outbox_wait_for_the_file_only_after_a_delivery() -> None:
    class Watched(InMemoryOutbox):
        waits = 0

        async def noted(self) -> None:
            self.waits += 1

    async def story() -> None:
        file = Watched()
        async with delivering(MemoryServer(), file) as delivery:
            await delivery.outbox.noted()
            assert file.waits == 0
            await overwritten(delivery)
            await delivery.outbox.noted()
            assert file.waits == 1
            await asyncio.sleep(5.0)
            await delivery.outbox.noted()
            assert file.waits == 1

    run_virtually(story())


def test_as_many_are_kept_as_may_be_and_none_longer_than_that() -> None:
    kept = SettledRequests(most=3, age_s=10.0)
    kept.load([Settled("a", f"r{number}", b"d", START + timedelta(seconds=number)) for number in range(5)])
    assert (len(kept), kept.find("a", "r1"), kept.oldest_at) == (3, None, START + timedelta(seconds=2))
    kept.add(Settled("a", "late", b"d", START + timedelta(seconds=13.5)))
    assert (len(kept), kept.find("a", "r3")) == (2, None)
    assert kept.find("a", "late") is not None


def test_requests_that_the_brain_named_itself_are_not_kept() -> None:
    async def story() -> None:
        file = InMemoryOutbox()
        async with delivering(MemoryServer(), file) as delivery:
            own = draft(1, "m")
            object.__setattr__(own, "request_id", f"{OWN_PREFIX}1")
            await delivery.submit(ALICE, own, deadline_s=1.0)
        assert (await file.load()).settled == ()

    run_virtually(story())

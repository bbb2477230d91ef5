"""Writes that are delivered while they are looked for: found on one side or the other, never on neither."""

from __future__ import annotations

import asyncio

import pytest

from brain_server.core.reading import Reading
from brain_server.ports import SystemClock
from brain_server.ports.long_term import LongTermAnswer, MemoryList
from soma_contract.filters import EVERYTHING, Filter
from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Forget, Memory, Remember, Target, View
from soma_contract.recall import Hit, RecallQuery, Source
from soma_contract.tenant import Tenant
from tests.servicers.brain.kit import TENANT, Brain, Shelf, away, read, recalled, stored_hit, texts

OLD = stored_hit("the meeting is on Tuesday", 0.9, 0.9)


@pytest.fixture
async def racing(brain: Brain, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Brain:
    """A brain whose memory server reads, then takes all that is queued, and only then answers."""

    async def delivered() -> None:
        brain.delivery.pace.limit = 64
        brain.delivery.wake()
        assert await brain.delivery.drain(5.0)

    async def recall(tenant: Tenant, query: RecallQuery) -> LongTermAnswer:
        answer = await Shelf.recall(shelf, tenant, query)
        await delivered()
        return answer

    async def list_memories(tenant: Tenant, filter: Filter, **rest: object) -> MemoryList:
        page = await Shelf.list_memories(shelf, tenant, filter)
        await delivered()
        return page

    monkeypatch.setattr(shelf, "recall", recall)
    monkeypatch.setattr(shelf, "list_memories", list_memories)
    return brain


async def queued(brain: Brain, shelf: Shelf, *commands: Remember | Forget) -> None:
    shelf.outage = away()
    for command in commands:
        await brain.remembering.write(TENANT, command, deadline_s=5.0)
    brain.delivery.pace.limit = 0
    shelf.outage = None


async def test_a_new_memory_is_recalled(racing: Brain, shelf: Shelf) -> None:
    await queued(racing, shelf, Remember(Memory(text="the meeting is in room five")))
    assert ["the meeting is in room five"] == texts(await recalled(racing, "meeting room", session_id=""))
    assert 0 == racing.writes.count(TENANT), "the control: it was delivered meanwhile"


async def test_a_changed_memory_is_recalled_as_it_is_now(racing: Brain, shelf: Shelf) -> None:
    shelf.hits = [OLD]
    await queued(racing, shelf, Remember(Memory(memory_id=OLD.memory.memory_id, text="the meeting is on Friday")))
    answer = await recalled(racing, "when is the meeting?", session_id="")
    assert ["the meeting is on Friday"] == texts(answer)
    assert {Source.PENDING} == {read(hit).source for hit in answer.hits}


async def test_a_forgotten_memory_is_not_recalled(racing: Brain, shelf: Shelf) -> None:
    shelf.hits = [OLD, Hit(Memory(memory_id=keyed_memory_id("tests", "kept"), text="kept"), 0.5)]
    await queued(racing, shelf, Forget(Target(memory_id=OLD.memory.memory_id)))
    assert ["kept"] == texts(await recalled(racing, "when is the meeting?", session_id=""))


async def test_a_list_holds_it(racing: Brain, shelf: Shelf) -> None:
    await queued(racing, shelf, Remember(Memory(text="the meeting is in room five")))
    page = await Reading(shelf, racing.writes, SystemClock()).list_memories(
        TENANT,
        EVERYTHING,
        key_prefix="",
        order="created",
        descending=False,
        page_size=10,
        page_token="",
        view=View.BASIC,
    )
    assert ["the meeting is in room five"] == [memory.text for memory in page.memories]


async def test_the_write_before_the_last_is_not_taken_for_the_last(
    brain: Brain, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_id = keyed_memory_id("tests", "twice")
    await queued(
        brain, shelf, *(Remember(Memory(memory_id=memory_id, text=text)) for text in ("the first", "the second"))
    )
    reading, settled = asyncio.Event(), asyncio.Event()
    fetch = brain.outbox.payload

    async def payload(entry: object) -> bytes:
        found = await fetch(entry)  # type: ignore[arg-type]
        reading.set()
        await settled.wait()
        return found

    monkeypatch.setattr(brain.outbox, "payload", payload)
    looking = asyncio.create_task(brain.writes.touching(TENANT, memory_id))
    await reading.wait()
    for entry in [*brain.outbox.pending(TENANT)]:
        brain.outbox.settle(entry, delivered=True)
    settled.set()
    assert [] == await looking

"""WorkingMemoryService on a running stack: streams, items, promotion, rules, and recall with a session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count

import grpc
import numpy as np
import pytest
import pytest_asyncio

from soma.common.v1 import errors_pb2, types_pb2
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.graph.v1 import graph_service_pb2_grpc as graph_rpc
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma.memory.v1 import working_memory_service_pb2 as pb
from tests.integration.brain.agents import Mind, leg_states
from tests.support.brains import key_of
from tests.support.stack import Agent, Office

pytestmark = pytest.mark.stores

_sessions = count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def agent(office: Office) -> Agent:
    return await office.agent()


@pytest.fixture
def mind(office: Office, agent: Agent) -> Mind:
    return Mind(office.brain, agent, f"session-{next(_sessions)}")


def axis(*places: int) -> types_pb2.Vector:
    """A vector along some axes: likeness between such is easy to tell."""
    vector = np.zeros(384, "<f4")
    vector[list(places)] = 1.0
    return types_pb2.Vector(packed_f32=vector.tobytes())


async def code_of(call: Callable[[], Awaitable[object]]) -> grpc.StatusCode:
    """The status an awaitable call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call()
    return failed.value.code()


async def test_what_is_observed_is_answered_in_order_and_listed(mind: Mind) -> None:
    answers = await mind.observe("the deploy of build 7 failed", "rolled back to build 6", "Maya wants a report")
    assert [1, 2, 3] == [answer.sequence for answer in answers]
    assert all(answer.admitted for answer in answers)
    listed = await mind.items()
    assert [answer.item.item_id for answer in answers] == [item.item_id for item in listed]
    assert ["the deploy of build 7 failed", "rolled back to build 6", "Maya wants a report"] == [
        item.text for item in listed
    ]
    assert [1, 2, 3] == [item.sequence for item in listed]


async def test_a_resumed_stream_goes_on_after_the_last_number_and_repetitions_change_nothing(mind: Mind) -> None:
    first = await mind.observe("one", "two things")
    async with mind.observing() as watcher:
        assert (True, 2, 2) == (watcher.opened.resumed, watcher.opened.sequence, watcher.opened.item_count)
        again = await watcher.see("something else entirely", sequence=2)
        assert (True, first[1].item.item_id) == (again.already_observed, again.item.item_id)
        fresh = await watcher.see("three wild horses", sequence=3)
        assert (False, True) == (fresh.already_observed, fresh.admitted)
    assert ["one", "two things", "three wild horses"] == [item.text for item in await mind.items()]


async def test_a_gap_in_the_numbers_ends_the_stream_after_what_came_before_it(mind: Mind) -> None:
    async with mind.observing() as watcher:
        await watcher.send("first")
        await watcher.send("third", sequence=3)
        assert (await watcher.read()).observed.sequence == 1
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await watcher.read()
    assert grpc.StatusCode.OUT_OF_RANGE is failed.value.code()


async def test_a_bad_observation_is_refused_in_its_own_answer(mind: Mind) -> None:
    async with mind.observing() as watcher:
        await watcher.send("fine")
        await watcher.send("")
        await watcher.send("too rewarding", reward=1.5)
        await watcher.send("wrong length", embedding=types_pb2.Vector(packed_f32=np.ones(3, "<f4").tobytes()))
        await watcher.send("a different matter")
        frames = [await watcher.read() for _ in range(5)]
    assert ["observed", "refused", "refused", "refused", "observed"] == [frame.WhichOneof("frame") for frame in frames]
    refused = [frame.refused for frame in frames if frame.HasField("refused")]
    assert [2, 3, 4] == [each.sequence for each in refused]
    assert [
        errors_pb2.ERROR_REASON_FIELD_VIOLATION,
        errors_pb2.ERROR_REASON_FIELD_VIOLATION,
        errors_pb2.ERROR_REASON_DIMENSION_MISMATCH,
    ] == [each.error.reason for each in refused]
    assert ["fine", "a different matter"] == [item.text for item in await mind.items()]


async def test_a_stream_opens_once_and_only_its_own_session(office: Office, agent: Agent, mind: Mind) -> None:
    async with mind.watching() as watcher:
        await watcher.send("too early")
        assert await code_of(watcher.read) is grpc.StatusCode.INVALID_ARGUMENT
    async with mind.watching() as watcher:
        assert await code_of(lambda: watcher.open(session_id="another")) is grpc.StatusCode.INVALID_ARGUMENT
    async with mind.observing() as watcher:
        assert await code_of(watcher.open) is grpc.StatusCode.INVALID_ARGUMENT
    nameless = Mind(office.brain, agent, "")
    async with nameless.observing(session_id="named-in-the-body") as watcher:
        assert "named-in-the-body" == watcher.opened.session_id


async def test_a_session_belongs_to_the_persona_that_opened_it(mind: Mind) -> None:
    async with mind.observing(persona_id="clerk") as watcher:
        await watcher.see("mine")
    async with mind.watching() as watcher:
        assert await code_of(lambda: watcher.open(persona_id="boss")) is grpc.StatusCode.INVALID_ARGUMENT
    async with mind.observing(persona_id="clerk") as watcher:
        assert watcher.opened.resumed


async def test_near_duplicates_refresh_and_dull_repetitions_of_another_kind_are_ignored(mind: Mind) -> None:
    async with mind.observing() as watcher:
        first = await watcher.see("a", embedding=axis(0))
        second = await watcher.see("a again", embedding=axis(0))
        assert (True, first.item.item_id) == (second.refreshed, second.item.item_id)
        other = await watcher.see("b", embedding=axis(0), kind=pb.ITEM_KIND_THOUGHT)
        assert not other.admitted
        assert other.salience == pytest.approx(0.1)
        loved = await watcher.see("c", embedding=axis(0), kind=pb.ITEM_KIND_ACTION, reward=0.9)
        assert loved.admitted
    (item, *_) = await mind.items(kinds=[pb.ITEM_KIND_OBSERVATION])
    assert ("a again", 1, 1) == (item.text, item.sequence, item.uses)


async def test_items_are_listed_in_pages_by_kind_and_salience(mind: Mind) -> None:
    async with mind.observing() as watcher:
        for number in range(7):
            kind = pb.ITEM_KIND_THOUGHT if number % 2 else pb.ITEM_KIND_ACTION
            await watcher.see(f"item {number}", embedding=axis(number), kind=kind, reward=number / 10)
    texts: list[str] = []
    request = pb.ListItemsRequest(page_size=3)
    while True:
        page = await mind.working.ListItems(request, metadata=mind.metadata)
        texts += [item.text for item in page.items]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [f"item {number}" for number in range(7)] == texts
    assert ["item 1", "item 3", "item 5"] == [item.text for item in await mind.items(kinds=[pb.ITEM_KIND_THOUGHT])]
    assert ["item 4", "item 5", "item 6"] == [item.text for item in await mind.items(min_salience=0.8)]
    with pytest.raises(grpc.aio.AioRpcError, match="page"):
        await mind.items(page_token="elsewhere")


async def test_a_salient_item_is_promoted_after_three_ticks_and_keeps_its_id(mind: Mind, agent: Agent) -> None:
    async with mind.observing(persona_id="clerk") as watcher:
        seen = await watcher.see("the customer's contract ends in May", reward=1.0, actor="Maya")
        ticks = [await mind.tick() for _ in range(3)]
        item_id = seen.item.item_id
        async with asyncio.timeout(20):
            # The brain ticks too: its own tick may have begun the promotion, and is about to end it.
            while item_id != (await mind.items())[0].memory_id:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        later = await watcher.see("something quite different")
    told = [each.item_id for tick in ticks for each in tick.promoted]
    assert item_id in {*told, *(each.item_id for each in later.promoted)}
    memory = await agent.get(item_id)
    assert ("the customer's contract ends in May", "clerk", mind.session, "Maya") == (
        memory.text,
        memory.persona_id,
        memory.session_id,
        memory.actor,
    )
    assert memory.provenance.source == "working memory: salience held for 3 ticks"


async def test_items_are_promoted_on_request_once(mind: Mind, agent: Agent) -> None:
    (seen,) = await mind.observe("keep this")
    item_id = seen.item.item_id
    missing = "0190b6a0-7c1e-7000-8000-000000000000"
    request = pb.PromoteItemsRequest(item_ids=[item_id, missing], namespace_id="kept")
    for _ in range(2):
        answer = await mind.working.PromoteItems(request, metadata=mind.metadata)
        (promoted, absent) = answer.promotions
        assert (item_id, types_pb2.DURABILITY_STORED) == (promoted.memory_id, promoted.durability)
        assert pb.PROMOTION_CAUSE_REQUESTED == promoted.cause
        assert errors_pb2.ERROR_REASON_SESSION_NOT_FOUND == absent.error.reason
    memory = await agent.get(item_id)
    assert ("kept", 1) == (memory.namespace, memory.version)


async def test_promoted_items_are_linked_to_what_their_session_promoted_before(office: Office, mind: Mind) -> None:
    seen = await mind.observe("the fuse blew at noon", "Ada takes the train from platform nine")
    first, second = (answer.item.item_id for answer in seen)
    for item_id in (first, second):
        await mind.working.PromoteItems(pb.PromoteItemsRequest(item_ids=[item_id]), metadata=mind.metadata)
    graph = graph_rpc.GraphServiceStub(office.brain)
    request = graph_pb.GetLinksRequest(
        target=types_pb2.MemoryTarget(memory_id=second), relations=["promoted_from"], page_size=10
    )
    (link,) = (await graph.GetLinks(request, metadata=mind.metadata)).links
    assert (second, first, 1.0) == (link.source_id, link.target_id, link.strength)
    told = json.loads(link.metadata_json)
    assert (mind.session, True) == (told["session_id"], bool(told["reason"]))


async def test_a_closed_session_is_gone_and_what_was_promoted_from_it_stays(mind: Mind, agent: Agent) -> None:
    await mind.observe("dull", reward=0.0)
    async with mind.observing() as watcher:
        loved = await watcher.see("a precious thing of another sort", reward=0.9)
    request = pb.CloseSessionRequest(promote_min_salience=0.8)
    closed = await mind.working.CloseSession(request, metadata=mind.metadata)
    assert (True, 2, [loved.item.item_id]) == (
        closed.existed,
        closed.item_count,
        [each.memory_id for each in closed.promoted],
    )
    assert await code_of(mind.items) is grpc.StatusCode.NOT_FOUND
    assert not (await mind.working.CloseSession(request, metadata=mind.metadata)).existed
    assert (await agent.get(loved.item.item_id)).text == "a precious thing of another sort"


async def test_rules_are_the_tenants_and_need_an_administrator(office: Office, agent: Agent, mind: Mind) -> None:
    asked = pb.ConfigureRequest(rules=pb.WorkingMemoryRules(capacity=2, admission_salience=0.0))
    assert await code_of(lambda: mind.working.Configure(asked, metadata=mind.metadata)) is (
        grpc.StatusCode.PERMISSION_DENIED
    )
    told = await mind.working.Configure(pb.ConfigureRequest(), metadata=mind.metadata)
    assert (128, 0.6, 600, 3, "default") == (
        told.rules.capacity,
        told.rules.novelty_weight,
        told.rules.half_life.seconds,
        told.rules.promotion_ticks,
        told.rules.promotion_namespace_id,
    )
    admin = [*office.admin_metadata, ("soma-tenant", office.stack.tenant), ("soma-session", mind.session)]
    try:
        changed = await mind.working.Configure(asked, metadata=admin)
        assert (2, 0.0, 0.6) == (
            changed.rules.capacity,
            changed.rules.admission_salience,
            changed.rules.novelty_weight,
        )
        wrong = pb.ConfigureRequest(rules=pb.WorkingMemoryRules(novelty_weight=0.9))
        assert await code_of(lambda: mind.working.Configure(wrong, metadata=admin)) is (
            grpc.StatusCode.INVALID_ARGUMENT
        )
    finally:
        reset = await mind.working.Configure(pb.ConfigureRequest(from_defaults=True), metadata=admin)
    assert reset.rules == told.rules


async def test_recall_merges_working_and_long_term_memory_best_first(mind: Mind, agent: Agent) -> None:
    await agent.remember("Ada drinks green tea every morning")
    await agent.remember("The garage door is painted red")
    await mind.observe("Ada asked for green tea again today", "The printer is out of paper")
    found = await mind.recall("what does Ada drink, green tea?", limit=10)
    sources = {hit.memory.text: memory_pb.HitSource.Name(hit.source) for hit in found.hits}
    assert {
        "Ada drinks green tea every morning": "HIT_SOURCE_LONG_TERM",
        "Ada asked for green tea again today": "HIT_SOURCE_WORKING",
    }.items() <= sources.items()
    assert {"Ada drinks green tea every morning", "Ada asked for green tea again today"} == set(found.texts[:2])
    assert sorted((hit.score for hit in found.hits), reverse=True) == [hit.score for hit in found.hits]
    states = leg_states(found)
    assert ("RAN", "SKIPPED", "RAN") == (states["working"], states["pending"], states["dense"])
    (working,) = [hit for hit in found.hits if hit.memory.text.startswith("Ada asked")]
    assert working.signals.HasField("dense")
    assert working.signals.HasField("working")
    assert not found.summary.degraded


async def test_recall_without_a_session_or_of_another_one_sees_no_working_memory(
    office: Office, agent: Agent, mind: Mind
) -> None:
    await mind.observe("a secret of this session")
    for other in (Mind(office.brain, agent, ""), Mind(office.brain, agent, "another-session")):
        found = await other.recall("a secret of this session")
        assert ([], "SKIPPED") == (found.texts, leg_states(found)["working"])


async def test_a_promoted_item_is_one_hit_and_leaves_when_its_memory_is_forgotten(mind: Mind, agent: Agent) -> None:
    (seen,) = await mind.observe("the server room key hangs behind the door", reward=1.0)
    item_id = seen.item.item_id
    await mind.working.PromoteItems(pb.PromoteItemsRequest(item_ids=[item_id]), metadata=mind.metadata)
    found = await mind.recall("where is the server room key?")
    assert [item_id] == found.ids
    assert found.hits[0].signals.HasField("working")
    request = memory_pb.ForgetRequest(target=types_pb2.MemoryTarget(memory_id=item_id))
    await agent.memory.Forget(request, metadata=agent.metadata)
    assert [] == (await mind.recall("where is the server room key?")).ids
    assert [] == [item.item_id for item in await mind.items()]


async def test_a_memory_that_is_forgotten_past_the_brain_leaves_working_memory_without_a_recall(
    office: Office, mind: Mind, agent: Agent
) -> None:
    (seen,) = await mind.observe("the spare key lies under the pot", reward=1.0)
    item_id = seen.item.item_id
    await mind.working.PromoteItems(pb.PromoteItemsRequest(item_ids=[item_id]), metadata=mind.metadata)
    past = Agent(office.memory, key_of(agent), agent.tenant)
    request = memory_pb.ForgetRequest(target=types_pb2.MemoryTarget(memory_id=item_id))
    await past.memory.Forget(request, metadata=past.metadata)
    async with asyncio.timeout(20):
        while await mind.items():  # noqa: ASYNC110 - a list does not tell that it changed
            await asyncio.sleep(0.05)


async def test_only_working_memory_can_be_asked_and_filters_hold_for_it_too(mind: Mind, agent: Agent) -> None:
    await agent.remember("long-term knowledge about parrots")
    async with mind.observing() as watcher:
        for number in range(3):
            await watcher.see(f"parrot {number}", embedding=axis(number))
    found = await mind.recall(embedding=axis(1), legs=[memory_pb.RECALL_LEG_WORKING], limit=2)
    assert ("parrot 1", 2) == (found.texts[0], len(found.texts))
    assert "SKIPPED" == leg_states(found)["dense"]
    strict = await mind.recall(embedding=axis(1), legs=[memory_pb.RECALL_LEG_WORKING], min_score=0.9)
    assert ["parrot 1"] == strict.texts
    elsewhere = await mind.recall("parrot", min_relevance=0.5)
    assert [] == elsewhere.texts


async def test_each_recall_that_returns_an_item_is_a_use_of_it(mind: Mind) -> None:
    async with mind.observing() as watcher:
        for number in range(4):
            await watcher.see(f"thing {number}", embedding=axis(number))
    for _ in range(2):
        await mind.recall(embedding=axis(2), legs=[memory_pb.RECALL_LEG_WORKING], limit=1)
    assert [0, 0, 2, 0] == [item.uses for item in await mind.items()]

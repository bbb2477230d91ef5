"""The Python client against the running stack: what it says is what the servers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from soma_client import AgentContext, Memory, Remember, Soma, SomaClient, load_memory, save_memory, search_memory
from soma_contract.coordinate import coordinate_of
from soma_contract.errors import (
    FieldViolationError,
    MemoryExistsError,
    MemoryNotFoundError,
    RequestIdReusedError,
    VersionMismatchError,
)
from soma_contract.filters import EVERYTHING, AllOf, KeyPrefix, TagsAny
from soma_contract.memory import Durability, Kind, Vector, View
from soma_contract.recall import Leg, Recalled, RecallQuery
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]


@pytest_asyncio.fixture(loop_scope="session")
async def soma(office: Office) -> AsyncIterator[SomaClient]:
    """A client of the brain, for a tenant of its own."""
    agent = await office.agent()
    key = dict(agent.metadata)["authorization"].removeprefix("Bearer ")
    async with SomaClient.connect(office.stack.brain_address, key=key, tenant=agent.tenant) as client:
        yield client


async def test_a_memory_comes_back_as_it_was_given(soma: SomaClient) -> None:
    given = Memory(
        key="user.preferences.format",
        kind=Kind.SEMANTIC,
        schema_type="UserPreference",
        text="Mara wants tables",
        payload_json='{"exact":9007199254740993}',
        tags=("preference", "reports"),
        actor="Mara",
        session_id="s-1",
        sequence=7,
        importance=0.25,
        relevance=0.5,
    )

    answer = await soma.remember(given)

    read = await soma.get(key=given.key, view=View.FULL)
    assert (answer.durability, answer.created) == (Durability.STORED, True)
    kept = replace(
        read,
        memory_id="",
        coordinate=None,
        created_at=None,
        updated_at=None,
        version=0,
        embedding=None,
        embedding_model="",
    )
    assert kept == given
    assert read.coordinate == coordinate_of(given.key)
    assert (await soma.get(coordinate=coordinate_of(given.key))).memory_id == read.memory_id
    assert (await soma.get(answer.memory)).memory_id == read.memory_id


async def test_a_vector_comes_back_in_the_full_view_only(soma: SomaClient) -> None:
    given = Vector.of([{0: 0.5, 1: -0.5, 200: 0.5, 383: -0.5}.get(place, 0.0) for place in range(384)])
    await soma.remember(Memory(key="mine", text="a vector of the client's own", embedding=given))

    (listed,) = [memory async for memory in soma.list(key_prefix="mine", view=View.FULL)]
    (hit,) = (await soma.recall_all(RecallQuery(text="vector", view=View.FULL))).hits
    full = [await soma.get(key="mine", view=View.FULL), *await soma.batch_get([listed], view=View.FULL), listed]
    assert [given] * 4 == [memory and memory.embedding for memory in [*full, hit.memory]]
    (basic,) = (await soma.recall_all("vector")).hits
    assert (await soma.get(key="mine")).embedding is basic.memory.embedding is None


async def test_updates_conditions_and_history(soma: SomaClient) -> None:
    first = await soma.remember("tea", key="user.drink", tags=["hot"])

    await soma.update(key="user.drink", text="coffee", importance=0.9, if_match=1)

    changed = await soma.get(first.memory)
    assert (changed.text, changed.importance, changed.tags, changed.version) == ("coffee", 0.9, ("hot",), 2)
    with pytest.raises(VersionMismatchError):
        await soma.update(first.memory, text="milk", if_match=1)
    with pytest.raises(MemoryExistsError):
        await soma.remember("milk", key="user.drink", if_absent=True)
    assert [version.text async for version in soma.history(first.memory)] == ["coffee", "tea"]


async def test_a_repeated_request_id_gives_the_first_answer(soma: SomaClient) -> None:
    first = await soma.remember("tea", request_id="r-1")
    again = await soma.remember("tea", request_id="r-1")

    assert again.memory.memory_id == first.memory.memory_id
    with pytest.raises(RequestIdReusedError):
        await soma.remember("coffee", request_id="r-1")


async def test_many_are_stored_listed_in_pages_and_read_in_order(soma: SomaClient) -> None:
    texts = [f"note {number:03}" for number in range(120)]

    outcomes = sorted([outcome async for outcome in soma.remember_many(texts)], key=lambda outcome: outcome.position)

    ids = [outcome.remembered.memory.memory_id for outcome in outcomes if outcome.remembered]
    assert [memory and memory.text for memory in await soma.batch_get(ids)] == texts
    listed = [memory.text async for memory in soma.list(page_size=50)]
    assert sorted(listed) == texts


async def test_a_namespace_is_a_room_of_its_own(soma: SomaClient) -> None:
    work = soma.bound(namespace="work")
    await work.remember("the budget is tight", key="note")
    await soma.remember("the garden is green", key="note")

    assert (await work.get(key="note")).text == "the budget is tight"
    assert [hit.memory.text for hit in (await work.recall_all("what is green?")).hits] == ["the budget is tight"]
    assert [memory.text async for memory in soma.list()] == ["the garden is green"]


async def test_persona_and_session_of_the_client_are_those_of_what_it_writes(soma: SomaClient) -> None:
    planner = soma.bound(persona="planner", session="s-9")

    stored = await planner.remember("plan the launch")

    assert (stored.memory.persona_id, stored.memory.session_id) == ("planner", "s-9")


async def test_a_recall_tells_what_it_searched(soma: SomaClient) -> None:
    await soma.remember("Ada drinks tea with two sugars", tags=["drink"])
    await soma.remember("The meeting is on Friday", tags=["calendar"])

    stream = soma.recall("what does Ada drink?", filter=TagsAny(("drink",)), explain=True)
    hits = [hit async for hit in stream]

    assert [hit.memory.text for hit in hits] == ["Ada drinks tea with two sugars"]
    assert {Leg.DENSE, Leg.KEYWORD, Leg.OVERLAY} <= {report.leg for report in stream.summary.legs}
    assert stream.summary.revision >= 2


async def test_what_matches_is_forgotten_and_everything_never_is(soma: SomaClient) -> None:
    for key in ("draft.a", "draft.b", "final.a"):
        await soma.remember(key, key=key)

    dry = await soma.forget_matching(KeyPrefix("draft."), dry_run=True)
    done = await soma.forget_matching(KeyPrefix("draft."), expected_count=2)

    assert (dry.matched, dry.deleted) == (2, 0)
    assert (done.matched, done.deleted) == (2, 2)
    for everything in (EVERYTHING, AllOf((AllOf(),))):
        with pytest.raises(FieldViolationError):
            await soma.forget_matching(everything)
    assert [memory.key async for memory in soma.list()] == ["final.a"]
    with pytest.raises(MemoryNotFoundError):
        await soma.get(key="draft.a")


async def test_save_load_and_search_are_enough_for_an_agent(soma: SomaClient) -> None:
    preference = {"text": "Mara wants tables", "format": "table"}

    await save_memory(soma, "user.preferences.format", preference, type="UserPreference", relevance=0.9)
    await save_memory(soma, "user.preferences.colour", "Mara likes green", relevance=0.1)

    assert await load_memory(soma, "user.preferences.format") == preference
    assert await load_memory(soma, "user.preferences.sound") is None
    found = await search_memory(soma, "how should reports look?", type="UserPreference")
    assert [(one.key, one.payload) for one in found] == [("user.preferences.format", preference)]
    listed = await search_memory(soma, key_prefix="user.preferences.")
    assert [one.key for one in listed] == ["user.preferences.colour", "user.preferences.format"]
    relevant = await search_memory(soma, key_prefix="user.", min_relevance=0.5)
    assert [one.key for one in relevant] == ["user.preferences.format"]

    context = AgentContext(soma, tenant=soma.identity.tenant, persona="planner")
    saved = await context.memory.save("plan", {"task": "ship"})
    assert saved.memory.persona_id == "planner"
    assert await context.memory.load("plan") == {"task": "ship"}


async def test_a_batch_is_stored_in_parts_or_not_at_all(office: Office, soma: SomaClient) -> None:
    identity = soma.identity
    async with SomaClient.connect(office.stack.memory_address, key=identity.key, tenant=identity.tenant) as memory:
        wrong = Memory(text="tea", tags=("",))

        partly = await memory.remember_batch(["milk", wrong, "honey"])
        answers = await memory.recall_all("what is sweet?")

        assert [outcome.error and outcome.error.reason for outcome in partly] == [None, "FIELD_VIOLATION", None]
        assert {hit.memory.text for hit in answers.hits} == {"milk", "honey"}
        with pytest.raises(FieldViolationError) as caught:
            await memory.remember_batch(["salt", wrong], atomic=True)
        assert [violation.field for violation in caught.value.violations] == ["items[1].memory.tags[0]"]
        assert sorted([kept.text async for kept in memory.list()]) == ["honey", "milk"]


async def test_many_questions_go_over_one_stream_and_a_wrong_one_fails_alone(office: Office, soma: SomaClient) -> None:
    identity = soma.identity
    await soma.remember("Ada drinks tea", key="drink")
    async with SomaClient.connect(office.stack.memory_address, key=identity.key, tenant=identity.tenant) as memory:
        queries = [
            RecallQuery(text="what does Ada drink?"),
            RecallQuery(text="tea", limit=999),
            RecallQuery(text="Ada"),
        ]

        answers = {position: answer async for position, answer in memory.recall_many(queries)}

    assert sorted(answers) == [0, 1, 2]
    assert isinstance(answers[1], FieldViolationError)
    for position in (0, 2):
        answer = answers[position]
        assert isinstance(answer, Recalled)
        assert [hit.memory.text for hit in answer.hits] == ["Ada drinks tea"]


async def test_the_blocking_client_talks_to_the_same_memories(office: Office, soma: SomaClient) -> None:
    def talk() -> list[str]:
        identity = soma.identity
        with Soma.connect(office.stack.brain_address, key=identity.key, tenant=identity.tenant) as blocking:
            blocking.remember(Remember(Memory(text="tea")))
            return [memory.text for memory in blocking.list()]

    assert await asyncio.to_thread(talk) == ["tea"]
    assert [memory.text async for memory in soma.list()] == ["tea"]

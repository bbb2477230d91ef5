"""What recall promises whatever the query: exact texts first, filters first, budgets kept, deadlines kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from importlib.resources import files

import grpc
import pytest

from soma.memory.v1 import filter_pb2, memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from tests.support.stack import Agent, Office

ROWS = 1_000
SELECTIVITIES = {"all": 1, "tenth": 10, "hundredth": 100, "thousandth": 1_000}


def sample_texts() -> list[str]:
    """The texts of the sample that comes with the client."""
    return [
        json.loads(line)["text"]
        for part in sorted(files("soma_client").joinpath("sample").iterdir(), key=lambda part: part.name)
        for line in part.read_text().splitlines()
    ]


async def filled(agent: Agent, memories: list[memory_pb2.Memory]) -> list[str]:
    """Store memories over one stream; returns their ids in order."""

    async def requests() -> AsyncIterator[pb.RememberManyRequest]:
        for number, memory in enumerate(memories):
            yield pb.RememberManyRequest(correlation_id=str(number), remember=pb.RememberRequest(memory=memory))

    ids: dict[int, str] = {}
    async for answer in agent.memory.RememberMany(requests(), metadata=agent.metadata):
        ids[int(answer.correlation_id)] = answer.remembered.memory.memory_id
    return [ids[number] for number in range(len(memories))]


async def test_asking_the_exact_text_of_a_memory_finds_it_first_always(office: Office) -> None:
    agent = await office.agent()
    texts = list(dict.fromkeys(sample_texts()))
    await filled(agent, [memory_pb2.Memory(text=text) for text in texts])
    gate = asyncio.Semaphore(8)

    async def first(text: str) -> str:
        async with gate:
            return (await agent.recall(text, limit=1)).texts[0]

    assert texts == list(await asyncio.gather(*map(first, texts)))


@pytest.mark.parametrize("by", ["tag", "payload"])
async def test_a_filter_of_any_selectivity_leaves_exactly_its_matches(office: Office, by: str) -> None:
    agent = await office.agent(through="memory")
    memories = []
    for number in range(ROWS):
        marks = [name for name, every in SELECTIVITIES.items() if number % every == 0]
        payload = "{" + ", ".join(f'"{mark}": true' for mark in marks) + "}"
        memories.append(memory_pb2.Memory(text=f"row {number} of the ledger", tags=marks, payload_json=payload))
    ids = await filled(agent, memories)
    for indexed in (False, True):
        if indexed:
            await office.indexed()
        for name, every in SELECTIVITIES.items():
            request = pb.RecallRequest(text="a row of the ledger", limit=200)
            if by == "tag":
                request.filter.tags_any.values.append(name)
            else:
                request.filter.payload.path.append(name)
                request.filter.payload.comparison = filter_pb2.PAYLOAD_COMPARISON_EXISTS
            found = [
                frame.hit.memory.memory_id
                async for frame in agent.memory.Recall(request, metadata=agent.metadata)
                if frame.HasField("hit")
            ]
            matching = set(ids[::every])
            assert min(200, len(matching)) == len(found) == len(set(found))
            assert set(found) <= matching


async def test_a_token_budget_is_filled_best_first_and_never_exceeded(office: Office) -> None:
    agent = await office.agent()
    for number in range(20):
        await agent.remember(f"The tide table of harbour {number} hangs " + "next to the door " * number)
    whole = await agent.recall("tide table", limit=20, token_budget=100_000)
    assert 20 == len(whole.hits)
    assert whole.summary.tokens == sum(hit.tokens for hit in whole.hits)
    for budget in (10, 40, 100, 200):
        found = await agent.recall("tide table", limit=20, token_budget=budget)
        assert found.summary.tokens <= budget
        left = [hit.tokens for hit in whole.hits if hit.memory.memory_id not in found.ids]
        assert all(tokens + found.summary.tokens > budget for tokens in left)


@pytest.mark.parametrize("through", ["brain", "memory"])
@pytest.mark.parametrize("deadline_s", [0.005, 0.02, 0.1])
async def test_a_recall_is_back_by_its_deadline_and_names_what_it_dropped(
    office: Office, through: str, deadline_s: float
) -> None:
    agent = await office.agent(through=through)
    await agent.remember("The lamp in the hall is broken.")
    for number in range(10):
        started = time.monotonic()
        request = pb.RecallRequest(text=f"which lamp is broken, {number}?")
        summary = None
        try:
            async for frame in agent.memory.Recall(request, metadata=agent.metadata, timeout=deadline_s):
                if frame.HasField("summary"):
                    summary = frame.summary
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        took_s = time.monotonic() - started
        assert took_s < deadline_s + 0.25
        if summary is not None:
            late = [leg for leg in summary.legs if leg.state == pb.LEG_STATE_DROPPED]
            assert summary.degraded == bool(late) or any(leg.state == pb.LEG_STATE_DEGRADED for leg in summary.legs)
            assert all(leg.cause for leg in late)


async def test_explain_says_which_leg_proposed_a_hit_and_what_matched(office: Office) -> None:
    agent = await office.agent()
    await agent.remember(
        "Owen keeps the torque wrench in the red drawer. It was a gift from his grandmother in 1998.", actor="Owen"
    )
    await agent.remember("Lena sings in a choir on Mondays.", actor="Lena")
    await office.indexed()
    found = await agent.recall("where is Owen's torque wrench?", explain=True)
    told = found.hits[0].explanation
    assert "Owen keeps the torque wrench in the red drawer." == told.matched_text
    assert {"torqu", "wrench"} <= set(told.matched_terms)
    legs = {leg.leg: leg for leg in told.legs}
    assert (1, 1) == (legs[pb.RECALL_LEG_DENSE].rank, legs[pb.RECALL_LEG_KEYWORD].rank)
    assert told.adjustments["actor"] > 0


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_importance_decides_between_near_ties_when_it_is_asked_for(office: Office, through: str) -> None:
    agent = await office.agent(through=through)
    for filler in ("The soup needs salt.", "Olga paints fences.", "The printer jams on Mondays."):
        await agent.remember(filler)
    for place, importance in (("north", 3.0), ("south", 100.0), ("west", 2.0)):
        await agent.remember(f"The tram to the {place} was late.", importance=importance)
    plain = await agent.recall("late tram")
    assert not any(hit.signals.HasField("importance") for hit in plain.hits)
    found = await agent.recall("late tram", ranking=pb.Ranking(importance=1.0))
    assert "The tram to the south was late." == found.texts[0]
    ranks = {hit.memory.importance: hit.signals.importance for hit in found.hits if hit.memory.importance}
    assert ranks[2.0] < ranks[3.0] < ranks[100.0] <= 1.0
    assert not any(hit.signals.HasField("importance") for hit in found.hits if not hit.memory.HasField("importance"))

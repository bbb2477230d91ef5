"""ContextService on a running stack."""

from __future__ import annotations

import grpc
import pytest
import pytest_asyncio

from soma.common.v1 import types_pb2
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.graph.v1 import graph_service_pb2_grpc as graph_rpc
from soma.memory.v1 import context_service_pb2 as pb
from soma.memory.v1 import memory_pb2
from soma_contract.tokenizer import count_tokens
from tests.integration.brain.agents import Mind
from tests.support.stack import Agent, Office

pytestmark = pytest.mark.stores

FACTS = ["Ada prefers green tea to coffee", "Ada is allergic to peanuts", "The office kitchen closes at six"]
EVENTS = ["On Monday Ada spilled her tea over the keyboard", "The kettle was repaired on Tuesday"]


@pytest_asyncio.fixture(loop_scope="session")
async def agent(office: Office) -> Agent:
    agent = await office.agent()
    for text in FACTS:
        await agent.remember(text, kind=memory_pb2.KIND_SEMANTIC)
    for text in EVENTS:
        await agent.remember(text)
    return agent


async def test_a_context_has_a_section_a_category_and_cites_every_line(office: Office, agent: Agent) -> None:
    mind = Mind(office.brain, agent, "tea-time")
    await mind.observe("Ada asks for something to drink, no coffee please")
    sections, summary = await mind.assemble("what should I bring Ada to drink, tea?", token_budget=600)
    assert ["Facts and preferences", "What happened"] == [section.name for section in sections]
    assert FACTS[0] in sections[0].text.splitlines()[0]
    assert "Ada asks for something to drink" in sections[1].text
    for section in sections:
        assert section.text == "\n".join(line.text for line in section.lines)
        assert all("[m:" in line.text and line.memory_ids for line in section.lines)
        assert count_tokens(section.text) == section.tokens
    assert summary.tokens == sum(section.tokens for section in sections) <= 600
    assert (False, 0, []) == (summary.degraded, summary.omitted, list(summary.failed_categories))
    assert summary.revision > 0
    assert (await mind.items())[0].uses >= 1, "what stands in the context was used"


async def test_a_small_budget_is_kept_and_what_is_left_out_is_counted(office: Office, agent: Agent) -> None:
    for number in range(12):
        await agent.remember(
            f"Tea ceremony {number}: " + "the water was poured slowly into the small cup. " * 4,
            kind=memory_pb2.KIND_SEMANTIC,
        )
    mind = Mind(office.brain, agent, "")
    sections, summary = await mind.assemble("tell me about the tea ceremonies", token_budget=200)
    assert summary.tokens <= 200
    cited = {memory_id for section in sections for memory_id in section.memory_ids}
    assert summary.summarised > 0
    assert sum(section.omitted for section in sections) == summary.omitted
    assert cited


async def test_categories_of_the_request_are_searched_with_their_own_words_and_filters(
    office: Office, agent: Agent
) -> None:
    mind = Mind(office.brain, agent, "")
    kitchen = pb.ContextCategory(name="Kitchen", text="kitchen opening hours", limit=1)
    kitchen.filter.kind.values.append(memory_pb2.KIND_SEMANTIC)
    sections, _ = await mind.assemble("good morning", categories=[kitchen])
    assert [("Kitchen", 1)] == [(section.name, len(section.lines)) for section in sections]
    assert FACTS[2] in sections[0].text


async def test_memories_of_one_context_are_linked_as_used_together_once_a_request(office: Office, agent: Agent) -> None:
    mind = Mind(office.brain, agent, "")
    contexts = [await mind.assemble("Ada peanuts allergic", token_budget=300, request_id="context-7") for _ in range(2)]
    sections, _ = contexts[-1]
    ids = [memory_id for section in sections for memory_id in section.memory_ids]
    graph = graph_rpc.GraphServiceStub(office.brain)
    request = graph_pb.GetLinksRequest(
        target=types_pb2.MemoryTarget(memory_id=ids[0]), relations=["co_recalled"], page_size=100
    )
    links: list[graph_pb.MemoryLink] = []
    for _ in range(200):
        links = [*(await graph.GetLinks(request, metadata=agent.metadata, timeout=10)).links]
        if links:
            break
    ends = {end for link in links for end in (link.source_id, link.target_id)} - {ids[0]}
    assert set(ids[1:]) <= ends
    assert {0.1} == {round(link.strength, 3) for link in links if {link.source_id, link.target_id} <= set(ids)}


async def test_nothing_known_is_an_empty_context_with_its_summary(office: Office) -> None:
    agent = await office.agent()
    sections, summary = await Mind(office.brain, agent, "").assemble("anything?")
    assert ([], 0, False) == (sections, summary.tokens, summary.degraded)


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": " "},
        {"text": "x", "token_budget": 10},
        {"text": "x", "categories": [pb.ContextCategory(name="")]},
        {"text": "x", "categories": [pb.ContextCategory(name="a"), pb.ContextCategory(name="a")]},
        {"text": "x", "categories": [pb.ContextCategory(name="a", share=0)]},
        {"text": "x", "session_id": "another"},
    ],
)
async def test_wrong_requests_are_refused(office: Office, agent: Agent, wrong: dict[str, object]) -> None:
    mind = Mind(office.brain, agent, "a-session")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await mind.assemble(**wrong)  # type: ignore[arg-type]
    assert grpc.StatusCode.INVALID_ARGUMENT is refused.value.code()

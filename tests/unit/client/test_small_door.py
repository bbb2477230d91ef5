"""Save, load and search are sugar on the contract."""

from __future__ import annotations

import json

import pytest

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_client import AgentContext, Memory, SomaClient, load_memory, save_memory, search_memory
from soma_client.small_door import payload_of
from soma_contract.errors import FieldViolationError, MemoryNotFoundError
from soma_contract.ids import keyed_memory_id
from tests.unit.client.shelf import Shelf

PREFERENCE = {"text": "Mara wants tables", "format": "table"}


async def test_a_payload_is_saved_under_its_key_with_type_ttl_and_relevance(shelf: Shelf, soma: SomaClient) -> None:
    saved = await save_memory(
        soma, "user.preferences.format", PREFERENCE, type="UserPreference", ttl_s=60, relevance=0.8
    )

    sent = shelf.request.memory
    assert json.loads(sent.payload_json) == PREFERENCE
    assert (sent.key, sent.schema_type, sent.relevance) == ("user.preferences.format", "UserPreference", 0.8)
    assert shelf.request.ttl.seconds == 60
    assert saved.memory.memory_id == keyed_memory_id("default", "user.preferences.format")
    assert saved.memory.text == "Mara wants tables"


async def test_numbers_of_a_payload_come_back_exactly(shelf: Shelf, soma: SomaClient) -> None:
    exact = {"text": "x", "big": 2**64 + 1, "small": -(2**70), "half": 0.1}

    await save_memory(soma, "numbers", exact)

    assert exact == payload_of(Memory(payload_json=shelf.request.memory.payload_json))


@pytest.mark.parametrize(
    "payload", [{"n": float("nan")}, {"n": {1, 2}}, {"n": "\ud800"}], ids=["NaN", "a set", "half a pair"]
)
async def test_what_json_cannot_say_is_refused_before_it_is_sent(soma: SomaClient, payload: dict[str, object]) -> None:
    with pytest.raises(FieldViolationError) as refused:
        await save_memory(soma, "key", payload)
    assert ["payload"] == [violation.field for violation in refused.value.violations]


async def test_what_was_not_saved_loads_as_nothing(shelf: Shelf, soma: SomaClient) -> None:
    shelf.failures = [MemoryNotFoundError(key="user.preferences.format")]

    assert await load_memory(soma, "user.preferences.format") is None


async def test_a_search_by_text_gives_keys_payloads_and_scores(shelf: Shelf, soma: SomaClient) -> None:
    memory = memory_pb2.Memory(text="Mara wants tables", key="user.format", payload_json=json.dumps(PREFERENCE))
    shelf.hits = [pb.RecallHit(memory=memory, score=0.7)]

    found = await search_memory(soma, "how does Mara like it?", type="UserPreference", min_relevance=0.5)

    assert [(one.key, one.payload, one.score) for one in found] == [("user.format", PREFERENCE, 0.7)]
    conditions = shelf.request.filter.all_of.filters
    assert list(conditions[0].schema_type.values) == ["UserPreference"]
    assert conditions[1].number.low == 0.5


async def test_a_search_by_prefix_lists_up_to_its_limit(shelf: Shelf, soma: SomaClient) -> None:
    for key in ("a", "b", "c"):
        await save_memory(soma, key, key)

    found = await search_memory(soma, key_prefix="x", limit=2)

    assert [(one.key, one.payload, one.score) for one in found] == [
        ("a", {"text": "a"}, None),
        ("b", {"text": "b"}, None),
    ]
    assert shelf.request.order == pb.LIST_ORDER_KEY


async def test_a_search_for_nothing_is_refused(soma: SomaClient) -> None:
    with pytest.raises(FieldViolationError):
        await search_memory(soma)


async def test_an_agent_context_is_bound_to_tenant_and_persona(shelf: Shelf, soma: SomaClient) -> None:
    context = AgentContext(soma, tenant="b", persona="planner")

    await context.memory.save("user.preferences.format", PREFERENCE)

    assert (shelf.metadata["soma-tenant"], shelf.metadata["soma-persona"]) == ("b", "planner")

"""MemoryService in domain values."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_client import Forgotten, Memory, Remember, SomaClient, Target
from soma_contract.coordinate import coordinate_of
from soma_contract.errors import FieldViolationError, MemoryTimeoutError, UnavailableError
from soma_contract.filters import KeyPrefix, LabelField, LabelIn
from soma_contract.memory import Durability, Kind
from soma_contract.recall import Leg, LegState, Preset, RecallQuery
from tests.unit.client.shelf import Shelf


async def test_a_text_is_remembered_with_what_is_given_beside_it(shelf: Shelf, soma: SomaClient) -> None:
    answer = await soma.remember(
        "tea", key="user.drink", kind=Kind.SEMANTIC, tags=["hot"], actor="Ada", payload={"sugar": 2}, ttl_s=1.5
    )

    sent = shelf.request
    assert (sent.memory.text, sent.memory.key, sent.memory.actor) == ("tea", "user.drink", "Ada")
    assert (sent.memory.payload_json, list(sent.memory.tags)) == ('{"sugar":2}', ["hot"])
    assert sent.ttl.ToMilliseconds() == 1500
    assert answer.memory.kind is Kind.SEMANTIC
    assert answer.memory.coordinate == coordinate_of("user.drink")
    assert (answer.durability, answer.revision, answer.created) == (Durability.STORED, 1, True)


async def test_a_command_keeps_its_conditions_and_its_request_id(shelf: Shelf, soma: SomaClient) -> None:
    await soma.remember(Remember(Memory(text="tea", importance=0.5), if_absent=True, request_id="r-1"))

    assert (shelf.request.if_absent, shelf.request.request_id) == (True, "r-1")
    assert shelf.request.memory.importance == 0.5


async def test_a_client_bound_to_a_namespace_writes_and_reads_there(shelf: Shelf, soma: SomaClient) -> None:
    work = soma.bound(namespace="work")

    await work.remember("tea")
    assert shelf.request.memory.namespace == "work"
    await work.recall_all("tea")
    assert list(shelf.request.filter.all_of.filters[0].namespace.values) == ["work"]
    await work.forget(key="user.drink")
    assert shelf.request.target.key.namespace == "work"


async def test_a_filter_that_names_a_namespace_is_left_alone(shelf: Shelf, soma: SomaClient) -> None:
    elsewhere = LabelIn(LabelField.NAMESPACE, ("elsewhere",))

    await soma.bound(namespace="work").recall_all("tea", filter=elsewhere)

    assert list(shelf.request.filter.namespace.values) == ["elsewhere"]


async def test_a_memory_is_named_in_exactly_one_way(soma: SomaClient) -> None:
    with pytest.raises(FieldViolationError):
        await soma.get()
    with pytest.raises(FieldViolationError):
        await soma.get("0190b6a0-7c1e-7000-8000-000000000000", key="user.drink")


@pytest.mark.parametrize("named", [(0.1, -0.2, 0.3), [0.1, -0.2, 0.3], "0.1, -0.2, 0.3"])
async def test_a_coordinate_may_be_a_tuple_a_list_or_a_text(shelf: Shelf, soma: SomaClient, named: object) -> None:
    await soma.forget(coordinate=named)  # type: ignore[arg-type]

    assert list(shelf.request.target.coordinate.coordinate.values) == [0.1, -0.2, 0.3]


async def test_many_are_read_in_order_however_many_calls_it_takes(shelf: Shelf, soma: SomaClient) -> None:
    kept = [(await soma.remember(text)).memory for text in "abcde"]
    absent = Target(memory_id="0190b6a0-7c1e-7000-8000-000000000000")

    found = await soma.batch_get([kept[4], absent, *kept[:4]])

    assert [memory and memory.text for memory in found] == ["e", None, "a", "b", "c", "d"]


async def test_an_update_sends_the_fields_given_and_a_mask_in_the_contracts_words(
    shelf: Shelf, soma: SomaClient
) -> None:
    at = datetime(2026, 9, 1, tzinfo=UTC)

    answer = await soma.update(key="user.drink", text="coffee", occurred_at=at, if_match=3)

    assert sorted(shelf.request.update_mask.paths) == ["occurred_time", "text"]
    assert (shelf.request.memory.text, shelf.request.if_match) == ("coffee", 3)
    assert (answer.durability, answer.created) == (Durability.QUEUED, None)


async def test_forgetting_tells_where_it_is_durable(soma: SomaClient) -> None:
    assert await soma.forget(key="user.drink") == Forgotten(Durability.STORED, 7)


async def test_forgetting_what_matches_ends_with_its_total(shelf: Shelf, soma: SomaClient) -> None:
    done = await soma.forget_matching(KeyPrefix("user."), expected_count=2)

    assert (done.matched, done.deleted, done.revision) == (2, 2, 9)
    assert (shelf.request.filter.key_prefix, shelf.request.expected_count) == ("user.", 2)


async def test_a_list_goes_over_all_pages(shelf: Shelf, soma: SomaClient) -> None:
    for text in "abcde":
        await soma.remember(text)

    listed = [memory.text async for memory in soma.list(order="updated", descending=True)]

    assert listed == ["a", "b", "c", "d", "e"]
    assert shelf.request.order == pb.LIST_ORDER_UPDATED
    assert shelf.request.descending is True


async def test_a_history_gives_the_versions(soma: SomaClient) -> None:
    kept = await soma.remember("tea")

    versions = [version async for version in soma.history(kept.memory)]

    assert [(version.text, version.version) for version in versions] == [("tea", 1)]


async def test_a_recall_gives_hits_and_then_its_summary(shelf: Shelf, soma: SomaClient) -> None:
    shelf.hits = [pb.RecallHit(memory=memory_pb2.Memory(text="tea"), score=0.9)]
    report = pb.LegReport(leg=pb.RECALL_LEG_DENSE, state=pb.LEG_STATE_DEGRADED, cause="COMPONENT_UNAVAILABLE:milvus")
    shelf.summary = pb.RecallSummary(legs=[report], degraded=True, considered=1)

    stream = soma.recall("what does Ada drink?", limit=3, preset=Preset.FAST, explain=True)
    with pytest.raises(RuntimeError):
        _ = stream.summary
    hits = [hit async for hit in stream]

    assert [(hit.memory.text, hit.score) for hit in hits] == [("tea", 0.9)]
    assert [(leg.leg, leg.state) for leg in stream.summary.legs] == [(Leg.DENSE, LegState.DEGRADED)]
    assert stream.summary.degraded is True
    sent = shelf.request
    assert (sent.text, sent.limit, sent.preset, sent.explain) == (
        "what does Ada drink?",
        3,
        pb.RECALL_PRESET_FAST,
        True,
    )


async def test_arguments_replace_those_of_a_query(shelf: Shelf, soma: SomaClient) -> None:
    await soma.recall_all(RecallQuery(text="tea", limit=7, explain=True), limit=3)

    assert (shelf.request.limit, shelf.request.explain) == (3, True)


async def test_half_an_answer_does_not_look_like_a_whole_one(shelf: Shelf, soma: SomaClient) -> None:
    shelf.hits = [pb.RecallHit(memory=memory_pb2.Memory(text="tea"), score=0.9)]
    shelf.summary = None

    with pytest.raises(UnavailableError):
        await soma.recall_all("tea")


async def test_an_answer_that_never_ends_is_given_up_at_the_deadline(shelf: Shelf, soma: SomaClient) -> None:
    shelf.stall = True

    with pytest.raises(MemoryTimeoutError):
        await soma.recall_all("tea", timeout_s=0.2)


async def test_a_recall_that_is_left_early_is_cancelled(shelf: Shelf, soma: SomaClient) -> None:
    shelf.hits = [pb.RecallHit(memory=memory_pb2.Memory(text="tea"), score=0.9)]
    shelf.stall = True

    async with asyncio.timeout(5):
        stream = soma.recall("tea")
        async for hit in stream:
            assert hit.memory.text == "tea"
            break
        await stream.aclose()

"""RememberBatch and RecallMany against the running servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from soma.batch.v1 import batch_service_pb2 as pb
from soma.batch.v1 import batch_service_pb2_grpc as rpc
from soma.common.v1 import errors_pb2
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma_contract.ids import new_memory_id
from tests.integration.batch.callers import Caller, caller_of
from tests.support.stack import Office

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "brain"])
async def caller(office: Office, request: pytest.FixtureRequest) -> Caller:
    """An agent's calls through one server, then through the other."""
    through = str(request.param)
    return caller_of(office, await office.agent(through=through), through=through)


def item(text: str = "", *, if_absent: bool = False, **fields: object) -> memory_pb.RememberRequest:
    """One memory of a batch."""
    memory = memory_pb2.Memory(text=text, **fields)  # type: ignore[arg-type]
    return memory_pb.RememberRequest(memory=memory, if_absent=if_absent)


async def test_a_batch_stores_each_on_its_own(caller: Caller) -> None:
    wrong = item("wrong", memory_id="not an id")
    request = pb.RememberBatchRequest(items=[item("the first"), wrong, item("the third")])
    answer = await caller.batch.RememberBatch(request, metadata=caller.metadata, timeout=20)
    assert ["remembered", "error", "remembered"] == [one.WhichOneof("outcome") for one in answer.items]
    error = answer.items[1].error
    assert errors_pb2.ERROR_REASON_FIELD_VIOLATION == error.reason
    assert ["memory.memory_id"] == [violation.field_path for violation in error.violations]
    stored = await caller.agent.get(answer.items[2].remembered.memory.memory_id)
    assert "the third" == stored.text
    assert answer.items[2].remembered.revision <= answer.revision


async def test_an_atomic_batch_with_a_wrong_item_stores_nothing(caller: Caller) -> None:
    memory_id = new_memory_id()
    request = pb.RememberBatchRequest(items=[item("fine", memory_id=memory_id), item()], atomic=True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.batch.RememberBatch(request, metadata=caller.metadata, timeout=20)
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
    assert "items[1].memory.text" in (refused.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await caller.agent.get(memory_id)


async def test_an_atomic_batch_with_a_refused_item_stores_nothing(caller: Caller) -> None:
    there = (await caller.agent.remember("already here")).memory.memory_id
    fresh = new_memory_id()
    items = [item("fresh", memory_id=fresh), item("another", memory_id=there, if_absent=True)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.batch.RememberBatch(
            pb.RememberBatchRequest(items=items, atomic=True), metadata=caller.metadata, timeout=20
        )
    assert grpc.StatusCode.ALREADY_EXISTS == refused.value.code()
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await caller.agent.get(fresh)


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_of_another_size_is_refused(caller: Caller, count: int) -> None:
    request = pb.RememberBatchRequest(items=[item("x")] * count)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.batch.RememberBatch(request, metadata=caller.metadata, timeout=20)
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()


async def test_the_answer_to_a_large_batch_stays_small_enough(caller: Caller) -> None:
    items = [item("x" * 120_000) for _ in range(30)]
    answer = await caller.batch.RememberBatch(
        pb.RememberBatchRequest(items=items), metadata=caller.metadata, timeout=30
    )
    assert answer.ByteSize() <= 3 * 1024 * 1024
    assert 30 == len({one.remembered.memory.memory_id for one in answer.items})


async def test_many_recalls_are_each_answered_under_their_own_id(caller: Caller) -> None:
    animals = ["otter", "heron", "badger", "lynx", "newt", "stoat", "wren", "carp", "toad", "vole", "hare", "ibex"]
    for animal in animals:
        await caller.agent.remember(f"The {animal} was seen at the pond")

    async def queries() -> AsyncIterator[pb.RecallManyRequest]:
        for animal in animals:
            recall = memory_pb.RecallRequest(text=f"where was the {animal} seen?", limit=3)
            yield pb.RecallManyRequest(correlation_id=animal, recall=recall)
        yield pb.RecallManyRequest(correlation_id="nothing asked", recall=memory_pb.RecallRequest())

    first: dict[str, str] = {}
    ended: dict[str, str] = {}
    async for frame in caller.batch.RecallMany(queries(), metadata=caller.metadata, timeout=60):
        assert frame.correlation_id not in ended
        if frame.WhichOneof("outcome") == "hit":
            first.setdefault(frame.correlation_id, frame.hit.memory.text)
        else:
            ended[frame.correlation_id] = str(frame.WhichOneof("outcome"))
    assert {animal: f"The {animal} was seen at the pond" for animal in animals} == first
    assert dict.fromkeys(animals, "summary") | {"nothing asked": "error"} == ended


async def test_a_batch_without_the_right_credentials_is_refused(office: Office, caller: Caller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rpc.BatchServiceStub(office.memory).RememberBatch(
            pb.RememberBatchRequest(items=[item("x")]), metadata=(("authorization", "Bearer soma_no_such"),), timeout=20
        )
    assert grpc.StatusCode.UNAUTHENTICATED == refused.value.code()

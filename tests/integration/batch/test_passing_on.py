"""What the brain carries when it passes a stream on: errors with their details, deadlines, cuts, the namespace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from rpckit.status import error_from_rpc
from soma.batch.v1 import batch_service_pb2 as pb
from soma.memory.v1 import watch_service_pb2 as watch_pb
from soma_contract.errors import ImportNotFoundError, OffsetGapError, SomaError
from soma_contract.ids import new_memory_id
from tests.integration.batch.callers import Caller, caller_of
from tests.integration.batch.streams import Stream, created, memories, memory, opened
from tests.support.stack import Office

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(loop_scope="session")
async def caller(office: Office) -> Caller:
    """An agent's calls through the brain."""
    return caller_of(office, await office.agent(through="brain"), through="brain")


async def failure(stream: Stream) -> SomaError:
    """The error a stream ends with."""
    try:
        while True:
            await stream.next()
    except grpc.aio.AioRpcError as failed:
        return error_from_rpc(failed)


async def test_an_error_arrives_with_its_reason_and_details(caller: Caller) -> None:
    async with opened(caller, await created(caller)) as (stream, _):
        stream.chunk(0, memories(3))
        stream.chunk(7, memories(1))
        error = await failure(stream)
    assert isinstance(error, OffsetGapError)
    assert {"expected_offset": "3"} == error.metadata


async def test_a_unary_call_is_refused_with_the_memory_servers_reason(caller: Caller) -> None:
    request = pb.GetImportRequest(import_id=new_memory_id())
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await caller.batch.GetImport(request, metadata=caller.metadata, timeout=20)
    error = error_from_rpc(failed.value)
    assert isinstance(error, ImportNotFoundError)
    assert {"import_id": request.import_id} == error.metadata


async def test_a_deadline_ends_a_stream_that_would_last_for_ever(caller: Caller) -> None:
    call = caller.watch.Watch(watch_pb.WatchRequest(), metadata=caller.metadata, timeout=1.0)
    started = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for _ in call:
            pass
    assert grpc.StatusCode.DEADLINE_EXCEEDED == failed.value.code()
    assert time.monotonic() - started < 1.5


async def test_a_half_closed_stream_is_answered_to_its_end(caller: Caller) -> None:
    stream = Stream(caller)
    stream.open(await created(caller))
    stream.chunk(0, memories(20))
    stream.half_close()
    frames = []
    while (frame := await stream.call.read()) is not grpc.aio.EOF:
        frames.append(frame)
    assert grpc.StatusCode.OK == await stream.call.code()
    assert isinstance(frames[-1], pb.ImportRecordsResponse)
    assert 20 == frames[-1].ack.committed_offset


async def test_a_cut_reaches_the_memory_server(office: Office, caller: Caller) -> None:
    # As many as a tenant may have: one more is admitted only when the cut ones are gone at both servers.
    for _ in range(3):
        calls = [caller.watch.Watch(watch_pb.WatchRequest(), metadata=caller.metadata) for _ in range(64)]
        await asyncio.gather(*(call.read() for call in calls))
        for call in calls:
            call.cancel()
        async with asyncio.timeout(10):
            while True:
                again = caller.watch.Watch(watch_pb.WatchRequest(), metadata=caller.metadata)
                try:
                    await again.read()
                    break
                except grpc.aio.AioRpcError as refused:
                    if refused.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                finally:
                    again.cancel()


async def test_the_calls_namespace_is_that_of_records_without_one(caller: Caller) -> None:
    import_id = await created(caller)
    named = tuple(pair for pair in caller.metadata if pair[0] != "soma-tenant")
    metadata = (*named, ("x-soma-namespace", f"{caller.agent.tenant}:lab"))
    record = memory("in the lab")

    async def frames() -> AsyncIterator[pb.ImportRecordsRequest]:
        yield pb.ImportRecordsRequest(open=pb.OpenImport(import_id=import_id))
        yield pb.ImportRecordsRequest(chunk=pb.ImportChunk(offset=0, records=[record]))

    async for _ in caller.batch.ImportRecords(frames(), metadata=metadata):
        pass
    assert "lab" == (await caller.agent.get(record.memory.memory_id)).namespace

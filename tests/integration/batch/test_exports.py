"""ExportRecords against the running servers: what it sends, and that an import of it is the same again."""

from __future__ import annotations

import hashlib

import grpc
import numpy as np
import pytest
import pytest_asyncio

from soma.batch.v1 import batch_service_pb2 as pb
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2
from soma.memory.v1 import filter_pb2, memory_pb2
from soma.memory.v1 import memory_service_pb2 as memory_pb
from tests.integration.batch.callers import Caller, caller_of
from tests.integration.batch.streams import exported, imported, memories, memory
from tests.support.stack import Office

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "brain"])
async def caller(office: Office, request: pytest.FixtureRequest) -> Caller:
    """An agent's calls through one server, then through the other."""
    through = str(request.param)
    return caller_of(office, await office.agent(through=through), through=through)


def checksum(records: list[pb.Record]) -> str:
    """One value for all that records say, in their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.SerializeToString(deterministic=True))
    return digest.hexdigest()


def supplied(seed: int) -> common.Vector:
    """A vector of the stack's dimension."""
    values = np.random.default_rng(seed).normal(size=384).astype("<f4")
    return common.Vector(packed_f32=(values / np.linalg.norm(values)).tobytes())


def a_rich_memory(number: int) -> pb.Record:
    """A record that uses every field."""
    record = memory(
        f"Ümläut {number} \N{SNOWMAN}",
        key=f"k.{number}" if number % 2 else "",
        memory_id="" if number % 4 == 1 else memory("").memory.memory_id,
        namespace=f"space-{number % 3}",
        kind=number % 3 + 1,
        schema_type="UserPreference",
        schema_version="2",
        persona_id="p",
        payload_json='{"a": [1.50, 18446744073709551616, "\\u00e9"]}',
        tags=["x", f"t{number}"],
        actor="Ada",
        session_id="s",
        sequence=number,
        importance=number / 7,
        relevance=0.5,
        version=number % 5,
    )
    wire = record.memory
    wire.provenance.author = "Grace"
    wire.provenance.confidence = 0.25
    wire.occurred_time.FromJsonString("2019-05-06T07:08:09.000010Z")
    wire.create_time.FromJsonString("2020-05-06T07:08:09.000010Z")
    wire.update_time.FromJsonString("2021-05-06T07:08:09.000011Z")
    wire.expire_time.FromJsonString("2199-05-06T07:08:09.000012Z")
    if number % 3:
        wire.embedding.CopyFrom(supplied(number))
        wire.embedding_model = "mine"
    return record


async def test_an_import_of_an_export_is_the_same_again(office: Office, caller: Caller) -> None:
    first = [a_rich_memory(number) for number in range(60)]
    await imported(caller, first)
    ids = [record.memory.memory_id for record in await exported(caller)]
    links = [
        pb.Record(
            link=graph_service_pb2.MemoryLink(
                source_id=ids[n], target_id=ids[n + 1], relation="related", strength=0.5, metadata_json='{"w": 1.0}'
            )
        )
        for n in range(50)
    ]
    await imported(caller, links)
    request = memory_pb.RememberRequest(memory=memory_pb2.Memory(memory_id=ids[3], text="changed since"))
    await caller.agent.memory.Remember(request, metadata=caller.metadata, timeout=20)
    await office.indexed()

    here = await exported(caller, include_embeddings=True, include_links=True)
    other = caller_of(office, await office.agent(through="memory"))
    job = await imported(other, here)
    there = await exported(other, include_embeddings=True, include_links=True)
    again = caller_of(office, await office.agent(through="memory"))
    await imported(again, there)

    assert (110, 0, 0) == (job.stored, job.skipped, job.refused)
    assert here == there
    assert checksum(here) == checksum(there)
    assert there == await exported(again, include_embeddings=True, include_links=True)
    assert 60 == sum(record.memory.HasField("embedding") for record in here if record.HasField("memory"))


async def test_without_embeddings_the_texts_are_embedded_anew(office: Office, caller: Caller) -> None:
    await imported(caller, [a_rich_memory(number) for number in range(6)])
    here = await exported(caller)
    other = caller_of(office, await office.agent(through="memory"))
    await imported(other, here)
    assert here == await exported(other)
    assert not any(record.memory.HasField("embedding") for record in here)
    await office.indexed()
    assert all(record.memory.HasField("embedding") for record in await exported(other, include_embeddings=True))


async def test_an_export_resumed_after_any_frame_sends_the_rest(caller: Caller) -> None:
    await imported(caller, [*memories(2_300), memory("long", payload_json=f'{{"x": "{"y" * 100_000}"}}')])
    whole = await exported(caller)
    assert 2_301 == len({record.memory.memory_id for record in whole})
    cursors = []
    async for frame in caller.batch.ExportRecords(pb.ExportRecordsRequest(), metadata=caller.metadata):
        cursors.append((frame.cursor, len(frame.records)))
        assert len(frame.records) <= 1_000
    assert len(cursors) > 2
    sent = 0
    for cursor, count in cursors:
        sent += count
        assert whole[sent:] == await exported(caller, cursor=cursor)


async def test_an_export_shows_one_moment_however_slowly_it_is_read(caller: Caller) -> None:
    await imported(caller, memories(2_500, "before"))
    call = caller.batch.ExportRecords(pb.ExportRecordsRequest(), metadata=caller.metadata)
    first = await call.read()
    assert isinstance(first, pb.ExportRecordsResponse)
    await imported(caller, memories(20, "after"))
    last = (await exported(caller))[-1].memory.memory_id
    request = memory_pb.ForgetMatchingRequest(filter=filter_pb2.Filter(memory_id=filter_pb2.StringSet(values=[last])))
    async for _ in caller.agent.memory.ForgetMatching(request, metadata=caller.metadata):
        pass
    records = list(first.records)
    while isinstance(frame := await call.read(), pb.ExportRecordsResponse):
        assert first.revision == frame.revision
        records.extend(frame.records)
    assert {f"before number {number}" for number in range(2_500)} == {record.memory.text for record in records}


async def test_a_filter_chooses_memories_and_the_links_between_them(caller: Caller) -> None:
    records = [memory(f"m{n}", tags=["keep"] if n < 3 else ["leave"]) for n in range(5)]
    ids = [record.memory.memory_id for record in records]
    links = [
        pb.Record(link=graph_service_pb2.MemoryLink(source_id=ids[a], target_id=ids[b], strength=1.0))
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 4))
    ]
    await imported(caller, [*records, *links])
    chosen = filter_pb2.Filter(tags_any=filter_pb2.StringSet(values=["keep"]))
    found = await exported(caller, filter=chosen, include_links=True)
    assert sorted(ids[:3]) == [record.memory.memory_id for record in found[:3]]
    assert {(ids[0], ids[1]), (ids[1], ids[2])} == {(one.link.source_id, one.link.target_id) for one in found[3:]}
    assert {"related"} == {record.link.relation for record in found[3:]}


async def test_an_export_of_nothing_is_one_frame_with_the_revision(caller: Caller) -> None:
    frames = [frame async for frame in caller.batch.ExportRecords(pb.ExportRecordsRequest(), metadata=caller.metadata)]
    assert [(0, 0)] == [(len(frame.records), frame.revision) for frame in frames]


async def test_a_cursor_of_another_export_or_tenant_is_refused(office: Office, caller: Caller) -> None:
    await imported(caller, memories(3))
    stranger = caller_of(office, await office.agent(through="memory"))
    await imported(stranger, memories(3))
    call = caller.batch.ExportRecords(pb.ExportRecordsRequest(), metadata=caller.metadata)
    frame = await call.read()
    assert isinstance(frame, pb.ExportRecordsResponse)
    for someone, request in (
        (stranger, pb.ExportRecordsRequest(cursor=frame.cursor)),
        (caller, pb.ExportRecordsRequest(cursor=frame.cursor, include_embeddings=True)),
        (caller, pb.ExportRecordsRequest(cursor="nonsense")),
        (caller, pb.ExportRecordsRequest(cursor="W10")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await someone.batch.ExportRecords(request, metadata=someone.metadata).read()
        assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()


async def test_only_so_many_exports_run_at_a_time(caller: Caller) -> None:
    await imported(caller, [memory("x", payload_json=f'{{"x": "{"y" * 120_000}"}}') for _ in range(60)], size=20)
    calls = [caller.batch.ExportRecords(pb.ExportRecordsRequest(), metadata=caller.metadata) for _ in range(3)]
    try:
        answers: list[object] = []
        for call in calls:
            try:
                answers.append(type(await call.read()))
            except grpc.aio.AioRpcError as refused:
                answers.append(refused.code())
    finally:
        for call in calls:
            call.cancel()
    assert [pb.ExportRecordsResponse, pb.ExportRecordsResponse, grpc.StatusCode.RESOURCE_EXHAUSTED] == answers

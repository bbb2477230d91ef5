"""The rules of ImportRecords against the running servers."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import pytest_asyncio

from soma.batch.v1 import batch_service_pb2 as pb
from soma.common.v1 import errors_pb2
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma_contract.ids import new_memory_id
from tests.integration.batch.callers import Caller, caller_of
from tests.integration.batch.streams import Stream, created, imported, memories, memory, opened
from tests.support.stack import Office

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "brain"])
async def caller(office: Office, request: pytest.FixtureRequest) -> Caller:
    """An agent's calls through one server, then through the other."""
    through = str(request.param)
    return caller_of(office, await office.agent(through=through), through=through)


async def get_job(caller: Caller, import_id: str) -> pb.ImportJob:
    """Read a job."""
    request = pb.GetImportRequest(import_id=import_id)
    return (await caller.batch.GetImport(request, metadata=caller.metadata, timeout=20)).job


async def stored_texts(caller: Caller) -> list[str]:
    """The texts of all memories of the caller, in order."""
    request = memory_pb.ListRequest(page_size=1000)
    answer = await caller.agent.memory.List(request, metadata=caller.metadata, timeout=20)
    return sorted(memory.text for memory in answer.memories)


async def refusals(caller: Caller, import_id: str, page_size: int = 1000) -> list[pb.RefusedRecord]:
    """All refusals of a job, page by page."""
    found: list[pb.RefusedRecord] = []
    request = pb.ListImportErrorsRequest(import_id=import_id, page_size=page_size)
    while True:
        page = await caller.batch.ListImportErrors(request, metadata=caller.metadata, timeout=20)
        assert len(page.refused) <= page_size
        found.extend(page.refused)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def link(source: str, target: str, **fields: object) -> pb.Record:
    """A record of a link."""
    fields.setdefault("strength", 0.5)
    return pb.Record(link=graph_service_pb2.MemoryLink(source_id=source, target_id=target, **fields))  # type: ignore[arg-type]


async def test_records_are_stored_and_acknowledged(caller: Caller) -> None:
    job = await imported(caller, memories(250))
    assert (pb.IMPORT_STATE_SUCCEEDED, 250, 250, 0, 250) == (
        job.state,
        job.committed_offset,
        job.stored,
        job.refused,
        job.total,
    )
    assert sorted(f"note number {number}" for number in range(250)) == await stored_texts(caller)


async def test_what_was_acknowledged_is_there_when_the_stream_is_cut(caller: Caller) -> None:
    import_id = await created(caller)
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, memories(10))
        await stream.acked(10)
    job = await get_job(caller, import_id)
    assert (pb.IMPORT_STATE_ACTIVE, 10, 10) == (job.state, job.committed_offset, job.stored)
    assert 10 == len(await stored_texts(caller))


async def test_a_repeated_chunk_is_acked_but_not_stored_again(caller: Caller) -> None:
    records = memories(30)
    async with opened(caller, await created(caller, on_conflict=pb.IMPORT_CONFLICT_FAIL)) as (stream, _):
        stream.chunk(0, records[:20])
        await stream.acked(20)
        stream.chunk(0, records[:20])
        repeated = (await stream.next()).ack
        assert (20, 20, 0, 1) == (repeated.committed_offset, repeated.stored, repeated.refused_total, repeated.credit)
        stream.chunk(10, records[10:])
        (ack,) = await stream.acked(30)
        assert (30, 0) == (ack.stored, ack.refused_total)


async def test_a_gap_ends_the_stream_and_names_the_offset(caller: Caller) -> None:
    async with opened(caller, await created(caller)) as (stream, _):
        stream.chunk(0, memories(5))
        stream.chunk(6, memories(1))
        status, message = await stream.ending()
    assert (grpc.StatusCode.OUT_OF_RANGE, True) == (status, "offset 5" in message)


async def test_a_stream_taken_up_again_goes_on_from_the_committed_offset(caller: Caller) -> None:
    import_id = await created(caller)
    records = memories(40)
    async with opened(caller, import_id) as (stream, first):
        stream.chunk(0, records[:25])
        await stream.acked(25)
    async with opened(caller, import_id) as (stream, again):
        stream.chunk(again.committed_offset, records[again.committed_offset :])
        await stream.acked(40)
        stream.finish(40)
        job = await stream.finished()
    assert (0, 25, 40) == (first.committed_offset, again.committed_offset, job.stored)
    assert 40 == len(await stored_texts(caller))


async def test_a_bad_record_is_refused_in_band_with_its_path(caller: Caller) -> None:
    import_id = await created(caller)
    wrong = memory("", payload_json="{", memory_id=new_memory_id())
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, [*memories(3), wrong, pb.Record(), *memories(2, "later")])
        (ack,) = await stream.acked(7)
        stream.finish(7)
        job = await stream.finished()
    assert [(3, "memory.payload_json"), (4, "record")] == [
        (one.offset, one.error.violations[0].field_path) for one in ack.refused
    ]
    assert (5, 2) == (job.stored, job.refused)
    listed = await refusals(caller, import_id)
    assert list(ack.refused) == listed
    assert [errors_pb2.ERROR_REASON_FIELD_VIOLATION] * 2 == [one.error.reason for one in listed]


async def test_refusals_beyond_a_hundred_are_listed_in_pages(caller: Caller) -> None:
    import_id = await created(caller)
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, [memory("x", tags=["a", "a"]) for _ in range(250)])
        (ack,) = await stream.acked(250)
    assert (100, 250) == (len(ack.refused), ack.refused_total)
    assert list(range(250)) == [one.offset for one in await refusals(caller, import_id, page_size=60)]


async def test_more_refusals_than_allowed_fail_the_job_at_that_record(caller: Caller) -> None:
    import_id = await created(caller, max_refused=1)
    bad = [memory("x", tags=["a", "a"]) for _ in range(2)]
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, [*memories(2), *bad, *memories(5, "never")])
        status, _ = await stream.ending()
    assert grpc.StatusCode.FAILED_PRECONDITION == status
    job = await get_job(caller, import_id)
    assert (pb.IMPORT_STATE_FAILED, 4, 2, 2) == (job.state, job.committed_offset, job.stored, job.refused)
    assert 2 == len(await stored_texts(caller))
    again = Stream(caller)
    again.open(import_id)
    assert (grpc.StatusCode.FAILED_PRECONDITION, True) == (
        (ended := await again.ending())[0],
        "failed" in ended[1],
    )


@pytest.mark.parametrize(
    ("conflict", "counts", "text"),
    [
        (pb.IMPORT_CONFLICT_SKIP, (1, 1, 0), "as it was"),
        (pb.IMPORT_CONFLICT_OVERWRITE, (2, 0, 0), "as it is now"),
        (pb.IMPORT_CONFLICT_FAIL, (1, 0, 1), "as it was"),
    ],
)
async def test_a_memory_that_exists_is_kept_replaced_or_refused(
    caller: Caller, conflict: pb.ImportConflict.ValueType, counts: tuple[int, int, int], text: str
) -> None:
    there = (await caller.agent.remember("as it was")).memory.memory_id
    job = await imported(caller, [memory("as it is now", memory_id=there), memory("new")], on_conflict=conflict)
    assert counts == (job.stored, job.skipped, job.refused)
    assert text == (await caller.agent.get(there)).text


async def test_the_same_content_again_makes_no_new_version(caller: Caller) -> None:
    there = (await caller.agent.remember("the same")).memory
    job = await imported(
        caller, [memory("the same", memory_id=there.memory_id)], on_conflict=pb.IMPORT_CONFLICT_OVERWRITE
    )
    assert (0, 1) == (job.stored, job.skipped)
    assert there == await caller.agent.get(there.memory_id)


async def test_a_record_keeps_its_times_and_version(caller: Caller) -> None:
    record = memory("from long ago", version=7)
    record.memory.create_time.FromJsonString("2020-01-02T03:04:05.000006Z")
    record.memory.update_time.FromJsonString("2021-02-03T04:05:06.000007Z")
    await imported(caller, [record])
    stored = await caller.agent.get(record.memory.memory_id)
    assert (7, record.memory.create_time, record.memory.update_time) == (
        stored.version,
        stored.create_time,
        stored.update_time,
    )
    request = memory_pb.RememberRequest(memory=stored)
    request.memory.text = "and now"
    answer = await caller.agent.memory.Remember(request, metadata=caller.metadata, timeout=20)
    assert (8, record.memory.create_time) == (answer.memory.version, answer.memory.create_time)


async def test_a_key_that_two_records_bring_is_one_memory(caller: Caller) -> None:
    records = [memory(f"drinks {drink}", key="user.drink", memory_id="") for drink in ("tea", "coffee", "water")]
    job = await imported(caller, records, on_conflict=pb.IMPORT_CONFLICT_OVERWRITE)
    assert 3 == job.stored
    request = memory_pb.GetRequest(target=common.MemoryTarget(key=common.NamespacedKey(key="user.drink")))
    stored = (await caller.agent.memory.Get(request, metadata=caller.metadata, timeout=20)).memory
    assert ("drinks water", 3) == (stored.text, stored.version)
    history = await caller.agent.memory.History(
        memory_pb.HistoryRequest(memory_id=stored.memory_id), metadata=caller.metadata, timeout=20
    )
    assert ["drinks water", "drinks coffee", "drinks tea"] == [version.text for version in history.versions]


async def test_links_come_after_their_ends_or_are_refused(caller: Caller) -> None:
    one, other = memories(2)
    nobody = new_memory_id()
    records = [
        one,
        other,
        link(one.memory.memory_id, other.memory.memory_id, relation="references", strength=0.25),
        link(one.memory.memory_id, nobody),
        link(one.memory.memory_id, one.memory.memory_id),
    ]
    import_id = await created(caller)
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, records)
        (ack,) = await stream.acked(5)
    assert [3, 4] == [refused.offset for refused in ack.refused]
    assert errors_pb2.ERROR_REASON_MEMORY_NOT_FOUND == ack.refused[0].error.reason
    assert {"memory_id": nobody, "field": "target"} == dict(ack.refused[0].error.metadata)
    assert ["link.target_id"] == [violation.field_path for violation in ack.refused[1].error.violations]
    assert 3 == ack.stored


async def test_of_two_streams_of_one_job_the_later_wins(caller: Caller) -> None:
    import_id = await created(caller)
    async with opened(caller, import_id) as (older, _):
        older.chunk(0, memories(5))
        await older.acked(5)
        async with opened(caller, import_id) as (newer, told):
            assert (grpc.StatusCode.ABORTED, True) == (
                (ended := await older.ending())[0],
                "taken over" in ended[1],
            )
            newer.chunk(told.committed_offset, memories(5, "newer"))
            await newer.acked(10)
            newer.finish(10)
            assert 10 == (await newer.finished()).stored


async def test_a_finished_job_says_so_again(caller: Caller) -> None:
    import_id = await created(caller)
    records = memories(3)
    jobs = []
    for _ in range(2):
        async with opened(caller, import_id) as (stream, told):
            if not told.committed_offset:
                stream.chunk(0, records)
                await stream.acked(3)
            stream.finish(3)
            jobs.append(await stream.finished())
    assert jobs[0].state == jobs[1].state == pb.IMPORT_STATE_SUCCEEDED
    assert jobs[0].stored == jobs[1].stored == 3


async def test_finishing_with_another_total_is_refused(caller: Caller) -> None:
    import_id = await created(caller)
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, memories(3))
        await stream.acked(3)
        stream.finish(4)
        status, message = await stream.ending()
    assert (grpc.StatusCode.OUT_OF_RANGE, True) == (status, "offset 3" in message)
    assert pb.IMPORT_STATE_ACTIVE == (await get_job(caller, import_id)).state


async def test_a_cancelled_job_keeps_what_is_stored_and_takes_no_more(caller: Caller) -> None:
    import_id = await created(caller)
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, memories(3))
        await stream.acked(3)
        request = pb.CancelImportRequest(import_id=import_id)
        answer = await caller.batch.CancelImport(request, metadata=caller.metadata, timeout=20)
        stream.chunk(3, memories(3, "late"))
        status, message = await stream.ending()
    assert pb.IMPORT_STATE_CANCELLED == answer.job.state
    assert (grpc.StatusCode.FAILED_PRECONDITION, True) == (status, "cancelled" in message)
    assert 3 == len(await stored_texts(caller))


async def test_a_dry_run_judges_like_an_import_and_stores_nothing(caller: Caller) -> None:
    there = (await caller.agent.remember("here already")).memory.memory_id
    first, second = memories(2)
    records = [
        first,
        second,
        memory("again", memory_id=there),
        link(first.memory.memory_id, there),
        memory("twice", memory_id=first.memory.memory_id),
        memory("", payload_json="[]"),
    ]
    jobs = []
    for dry_run in (True, False):
        import_id = await created(caller, dry_run=dry_run, on_conflict=pb.IMPORT_CONFLICT_FAIL)
        async with opened(caller, import_id) as (stream, _):
            for offset, record in enumerate(records):
                stream.chunk(offset, [record])
                await stream.acked(offset + 1)
            stream.finish(len(records))
            jobs.append(await stream.finished())
        if dry_run:
            assert ["here already"] == await stored_texts(caller)
    assert (3, 0, 3) == (jobs[0].stored, jobs[0].skipped, jobs[0].refused)
    assert (3, 0, 3) == (jobs[1].stored, jobs[1].skipped, jobs[1].refused)


async def test_sending_beyond_the_credit_ends_the_stream(caller: Caller) -> None:
    async with opened(caller, await created(caller)) as (stream, told):
        assert 1 <= told.credit <= 64
        for number in range(1_000):
            stream.chunk(number, memories(1))
        stream.half_close()
        status, message = await stream.ending()
    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, True) == (status, "credit" in message)


async def test_a_chunk_beyond_its_limits_ends_the_stream(caller: Caller) -> None:
    async with opened(caller, await created(caller)) as (stream, _):
        stream.chunk(0, [memory("x")] * 1001)
        status, message = await stream.ending()
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, "chunk.records" in message)


async def test_a_stream_must_begin_by_opening_a_job_that_exists(caller: Caller) -> None:
    unopened, unknown = Stream(caller), Stream(caller)
    unopened.chunk(0, memories(1))
    unknown.open(new_memory_id())
    assert grpc.StatusCode.INVALID_ARGUMENT == (await unopened.ending())[0]
    assert grpc.StatusCode.NOT_FOUND == (await unknown.ending())[0]


async def test_another_tenants_job_is_not_found(office: Office, caller: Caller) -> None:
    import_id = await created(caller)
    stranger = caller_of(office, await office.agent(through="memory"))
    stream = Stream(stranger)
    stream.open(import_id)
    assert grpc.StatusCode.NOT_FOUND == (await stream.ending())[0]
    for request in (
        stranger.batch.GetImport(pb.GetImportRequest(import_id=import_id), metadata=stranger.metadata, timeout=20),
        stranger.batch.CancelImport(
            pb.CancelImportRequest(import_id=import_id), metadata=stranger.metadata, timeout=20
        ),
        stranger.batch.ListImportErrors(
            pb.ListImportErrorsRequest(import_id=import_id), metadata=stranger.metadata, timeout=20
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await request
    assert pb.IMPORT_STATE_ACTIVE == (await get_job(caller, import_id)).state


async def test_the_same_request_id_finds_the_same_job(caller: Caller) -> None:
    ids = {await created(caller, request_id="nightly", label="night") for _ in range(3)}
    assert 1 == len(ids)
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
        await created(caller, request_id="nightly", label="day")


async def test_imported_memories_are_recalled_at_once_and_indexed_soon(office: Office, caller: Caller) -> None:
    import_id = await created(caller)
    async with opened(caller, import_id) as (stream, _):
        stream.chunk(0, [memory("The walrus sleeps on the harbour wall"), *memories(20)])
        await stream.acked(21)
        found = await caller.agent.recall("where does the walrus sleep?", limit=1)
        assert ["The walrus sleeps on the harbour wall"] == found.texts
        stream.finish(21)
        await stream.finished()
    await office.indexed()
    assert 21 == (await get_job(caller, import_id)).indexed


async def test_many_small_chunks_share_commits(caller: Caller) -> None:
    records = memories(400)
    async with opened(caller, await created(caller)) as (stream, told):
        sent, credit, committed = 0, told.credit, 0
        while committed < len(records):
            while credit and sent < len(records):
                stream.chunk(sent, records[sent : sent + 10])
                sent, credit = sent + 10, credit - 1
            ack = (await stream.next()).ack
            committed, credit = ack.committed_offset, credit + ack.credit
        stream.finish(400)
        assert 400 == (await stream.finished()).stored


async def test_a_cut_stream_leaves_nothing_running(caller: Caller) -> None:
    import_id = await created(caller)
    for round_ in range(10):
        async with opened(caller, import_id) as (stream, told):
            stream.chunk(told.committed_offset, memories(50, f"round {round_}"))
    async with asyncio.timeout(20), opened(caller, import_id) as (stream, told):
        assert 0 == told.committed_offset % 50
        stream.finish(told.committed_offset)
        job = await stream.finished()
    assert job.stored == len(await stored_texts(caller)) == told.committed_offset

"""ForgetMatching against the running servers: what matches goes, step by step, and nothing else."""

from __future__ import annotations

import grpc
import pytest
import pytest_asyncio

from soma.batch.v1 import batch_service_pb2 as pb
from soma.memory.v1 import filter_pb2
from soma.memory.v1 import memory_service_pb2 as memory_pb
from tests.integration.batch.callers import Caller, caller_of
from tests.integration.batch.streams import exported, imported, memory
from tests.support.stack import Office

pytestmark = pytest.mark.stores
OLD = filter_pb2.Filter(tags_any=filter_pb2.StringSet(values=["old"]))


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "brain"])
async def caller(office: Office, request: pytest.FixtureRequest) -> Caller:
    """An agent's calls through one server, then through the other, with 620 old memories and 5 new ones."""
    through = str(request.param)
    found = caller_of(office, await office.agent(through=through), through=through)
    await imported(found, [memory(f"n {n}", tags=["old" if n < 620 else "new"]) for n in range(625)], size=625)
    return found


async def frames(caller: Caller, **request: object) -> list[memory_pb.ForgetMatchingResponse]:
    """All frames of a call."""
    made = memory_pb.ForgetMatchingRequest(**request)  # type: ignore[arg-type]
    return [frame async for frame in caller.agent.memory.ForgetMatching(made, metadata=caller.metadata, timeout=60)]


async def tags(caller: Caller) -> dict[str, int]:
    """How many memories have which tag."""
    found: dict[str, int] = {}
    records: list[pb.Record] = await exported(caller)
    for record in records:
        found[record.memory.tags[0]] = found.get(record.memory.tags[0], 0) + 1
    return found


async def test_a_dry_run_counts_and_an_unexpected_count_deletes_nothing(caller: Caller) -> None:
    (dry,) = await frames(caller, filter=OLD, dry_run=True)
    assert (620, 0) == (dry.total.matched, dry.total.deleted)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await frames(caller, filter=OLD, expected_count=619)
    assert grpc.StatusCode.ABORTED == refused.value.code()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await frames(caller)
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
    assert {"old": 620, "new": 5} == await tags(caller)


async def test_what_matches_goes_in_steps_that_are_told(caller: Caller) -> None:
    *steps, last = await frames(caller, filter=OLD, expected_count=620)
    assert [500, 620] == [step.progress.deleted for step in steps]
    assert (620, 620, steps[-1].progress.revision) == (last.total.matched, last.total.deleted, last.total.revision)
    assert {"new": 5} == await tags(caller)
    (again,) = [frame for frame in await frames(caller, filter=OLD) if frame.HasField("total")]
    assert (0, 0) == (again.total.matched, again.total.deleted)

"""Watch against the running servers: order, resumption, and that following an export leads to the present state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio

from soma.batch.v1 import batch_service_pb2 as batch_pb
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.graph.v1 import graph_service_pb2_grpc as graph_rpc
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma.memory.v1 import watch_service_pb2 as pb
from soma_contract.ids import new_memory_id
from tests.integration.batch.callers import Caller, caller_of
from tests.integration.batch.streams import exported, imported, memories
from tests.support.stack import Office

pytestmark = pytest.mark.stores
PATIENCE_S = 20.0


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "brain"])
async def caller(office: Office, request: pytest.FixtureRequest) -> Caller:
    """An agent's calls through one server, then through the other."""
    through = str(request.param)
    return caller_of(office, await office.agent(through=through), through=through)


class Watcher:
    """One Watch call."""

    def __init__(self, caller: Caller, **request: Any) -> None:
        self.call = caller.watch.Watch(pb.WatchRequest(**request), metadata=caller.metadata)
        self.through = -1

    async def next(self) -> pb.WatchResponse:
        """The next frame; fails the test if none comes."""
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.call.read()
        assert isinstance(frame, pb.WatchResponse), frame
        if frame.HasField("checkpoint"):
            self.through = frame.checkpoint.revision
        elif frame.changes.complete:
            self.through = frame.changes.revision
        return frame

    async def changes(self, until: int) -> list[pb.ChangeSet]:
        """The changes up to and including a revision."""
        found = []
        # Checkpoints come for ever, also when changes do not.
        async with asyncio.timeout(2 * PATIENCE_S):
            while self.through < until:
                frame = await self.next()
                if frame.HasField("changes"):
                    found.append(frame.changes)
        return found


@asynccontextmanager
async def watching(caller: Caller, **request: Any) -> AsyncIterator[Watcher]:
    """A watcher that has had its first checkpoint; it is cut at the end."""
    watcher = Watcher(caller, **request)
    try:
        assert (await watcher.next()).HasField("checkpoint")
        yield watcher
    finally:
        watcher.call.cancel()


def stored(changes: list[pb.ChangeSet]) -> list[str]:
    """The texts of what was stored, in order."""
    return [
        one.memory_stored.memory.text for found in changes for one in found.changes if one.HasField("memory_stored")
    ]


async def test_changes_come_in_the_order_they_were_made(caller: Caller) -> None:
    async with watching(caller, after_revision=0) as watcher:
        answers = [await caller.agent.remember(f"number {number}") for number in range(10)]
        changes = await watcher.changes(answers[-1].revision)
    assert [f"number {number}" for number in range(10)] == stored(changes)
    assert list(range(1, 11)) == [found.revision for found in changes]
    first = changes[0].changes[0].memory_stored
    assert (answers[0].memory, False) == (first.memory, first.redacted)


async def test_without_a_start_only_what_comes_is_told(caller: Caller) -> None:
    await caller.agent.remember("before")
    async with watching(caller) as watcher:
        assert 1 == watcher.through
        after = await caller.agent.remember("after")
        assert ["after"] == stored(await watcher.changes(after.revision))


async def test_what_is_gone_since_is_told_without_its_content(caller: Caller) -> None:
    secret = (await caller.agent.remember("a secret", key="the.secret")).memory
    kept = (await caller.agent.remember("kept")).memory
    request = memory_pb.ForgetRequest(target=common.MemoryTarget(memory_id=secret.memory_id))
    gone = await caller.agent.memory.Forget(request, metadata=caller.metadata, timeout=20)
    async with watching(caller, after_revision=0) as watcher:
        first, second, third = [found.changes[0] for found in await watcher.changes(gone.revision)]
    assert (secret.memory_id, True, "") == (
        first.memory_stored.memory.memory_id,
        first.memory_stored.redacted,
        first.memory_stored.memory.text,
    )
    assert kept == second.memory_stored.memory
    assert (secret.memory_id, 1, pb.END_CAUSE_FORGOTTEN) == (
        third.memory_ended.memory_id,
        third.memory_ended.version,
        third.memory_ended.cause,
    )


async def test_older_versions_are_told_as_they_were(caller: Caller) -> None:
    memory_id = new_memory_id()
    last = [await caller.agent.remember(f"version {version}", memory_id=memory_id) for version in range(3)][-1]
    async with watching(caller, after_revision=0) as watcher:
        assert ["version 0", "version 1", "version 2"] == stored(await watcher.changes(last.revision))


async def test_links_are_told_on_request_and_go_with_their_ends(caller: Caller) -> None:
    one, other = [(await caller.agent.remember(text)).memory.memory_id for text in ("one", "other")]
    graph = graph_rpc.GraphServiceStub(caller.channel)
    link = graph_pb.LinkRequest(
        source=common.MemoryTarget(memory_id=one),
        target=common.MemoryTarget(memory_id=other),
        relation="related",
        strength=0.5,
    )
    made = await graph.Link(link, metadata=caller.metadata, timeout=20)
    async with watching(caller, after_revision=2, include_links=True) as watcher:
        (found,) = await watcher.changes(made.revision)
        told = found.changes[0].link_stored
        assert (one, other, "related", 0.5, 1) == (
            told.source_id,
            told.target_id,
            told.relation,
            told.strength,
            told.version,
        )
        forget = memory_pb.ForgetRequest(target=common.MemoryTarget(memory_id=other))
        gone = await caller.agent.memory.Forget(forget, metadata=caller.metadata, timeout=20)
        (found,) = await watcher.changes(gone.revision)
    assert other == found.changes[0].memory_ended.memory_id
    ended = found.changes[1].link_ended
    assert (one, other, pb.END_CAUSE_CASCADE) == (ended.source_id, ended.target_id, ended.cause)
    async with watching(caller, after_revision=0) as watcher:
        changes = await watcher.changes(gone.revision)
    assert not any(one.HasField("link_stored") or one.HasField("link_ended") for it in changes for one in it.changes)


async def test_only_the_namespaces_asked_for_are_told(caller: Caller) -> None:
    await caller.agent.remember("here", namespace="here")
    await caller.agent.remember("there", namespace="there")
    last = await caller.agent.remember("here again", namespace="here")
    async with watching(caller, after_revision=0, namespace_ids=["here"]) as watcher:
        assert ["here", "here again"] == stored(await watcher.changes(last.revision))


async def test_ids_alone_are_told_on_request(caller: Caller) -> None:
    last = await caller.agent.remember("long text", key="k")
    async with watching(caller, after_revision=0, ids_only=True) as watcher:
        (found,) = await watcher.changes(last.revision)
    told = found.changes[0].memory_stored
    expected = memory_pb2.Memory(
        memory_id=last.memory.memory_id, namespace="default", key="k", version=last.memory.version
    )
    assert (expected, False) == (told.memory, told.redacted)


async def test_an_import_commit_is_one_revision(caller: Caller) -> None:
    await imported(caller, memories(700), size=700)
    async with watching(caller, after_revision=0) as watcher:
        changes = await watcher.changes(1)
    assert {1} == {found.revision for found in changes}
    assert [False] * (len(changes) - 1) + [True] == [found.complete for found in changes]
    assert {f"note number {number}" for number in range(700)} == set(stored(changes))


async def test_a_start_in_the_future_is_refused(caller: Caller) -> None:
    watcher = Watcher(caller, after_revision=5)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watcher.next()
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()


async def test_resuming_from_any_point_loses_and_repeats_nothing(caller: Caller) -> None:
    last = [await caller.agent.remember(f"number {number}") for number in range(30)][-1]
    told: list[str] = []
    through = 0
    while through < last.revision:
        async with watching(caller, after_revision=through) as watcher:
            told += stored(await watcher.changes(min(through + 7, last.revision)))
            through = watcher.through
    assert [f"number {number}" for number in range(30)] == told


async def test_following_an_export_leads_to_the_present_state(caller: Caller) -> None:
    chance = random.Random(7)
    ids: list[str] = []
    links: set[tuple[str, str]] = set()

    async def change() -> int:
        graph = graph_rpc.GraphServiceStub(caller.channel)
        match chance.choice(["new", "new", "change", "forget", "link", "unlink"]):
            case "change" if ids:
                return (await caller.agent.remember(f"{chance.random()}", memory_id=chance.choice(ids))).revision
            case "forget" if ids:
                gone = ids.pop(chance.randrange(len(ids)))
                request = memory_pb.ForgetRequest(target=common.MemoryTarget(memory_id=gone))
                return (await caller.agent.memory.Forget(request, metadata=caller.metadata, timeout=20)).revision
            case "link" if len(ids) > 1:
                one, other = chance.sample(ids, 2)
                links.add((one, other))
                link = graph_pb.LinkRequest(
                    source=common.MemoryTarget(memory_id=one),
                    target=common.MemoryTarget(memory_id=other),
                    strength=chance.uniform(0.1, 1),
                )
                return (await graph.Link(link, metadata=caller.metadata, timeout=20)).revision
            case "unlink" if links:
                one, other = links.pop()
                unlink = graph_pb.UnlinkRequest(
                    source=common.MemoryTarget(memory_id=one),
                    target=common.MemoryTarget(memory_id=other),
                    allow_missing=True,
                )
                try:
                    return (await graph.Unlink(unlink, metadata=caller.metadata, timeout=20)).revision
                except grpc.aio.AioRpcError:
                    return 0
        answer = await caller.agent.remember(f"{chance.random()}")
        ids.append(answer.memory.memory_id)
        return answer.revision

    for _ in range(40):
        await change()
    begun = [
        frame
        async for frame in caller.batch.ExportRecords(
            batch_pb.ExportRecordsRequest(include_links=True), metadata=caller.metadata
        )
    ]
    for _ in range(80):
        await change()
    # A change that did nothing has no revision of its own; one more surely has.
    last = (await caller.agent.remember("the end")).revision

    state: dict[object, object] = {}
    for record in (record for frame in begun for record in frame.records):
        apply_record(state, record)
    through = begun[0].revision
    while through < last:
        async with watching(caller, after_revision=through, include_links=True) as watcher:
            for found in await watcher.changes(min(last, through + chance.randint(1, 30))):
                for one in found.changes:
                    apply_change(state, one)
            through = watcher.through
    expected: dict[object, object] = {}
    for record in await exported(caller, include_links=True):
        apply_record(expected, record)
    assert expected == state


def apply_record(state: dict[object, object], record: batch_pb.Record) -> None:
    """Put a record of an export into a state."""
    if record.HasField("memory"):
        state[record.memory.memory_id] = record.memory.text, record.memory.version
    else:
        link = record.link
        state[link.source_id, link.target_id, link.relation] = link.strength, link.version


def apply_change(state: dict[object, object], change: pb.Change) -> None:
    """Apply a change to a state."""
    match change.WhichOneof("subject"):
        case "memory_stored":
            memory = change.memory_stored.memory
            state[memory.memory_id] = memory.text, memory.version
        case "memory_ended":
            state.pop(change.memory_ended.memory_id, None)
        case "link_stored":
            link = change.link_stored
            state[link.source_id, link.target_id, link.relation] = link.strength, link.version
        case _:
            gone = change.link_ended
            state.pop((gone.source_id, gone.target_id, gone.relation), None)

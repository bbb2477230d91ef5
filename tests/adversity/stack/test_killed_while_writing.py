"""kill -9 of any process while agents write: what was acknowledged is there afterwards, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_embedded.stack import EmbeddedStack, ProcessName
from tests.support.stack import RANDOM_PORTS, Agent, Office, opened
from tests.support.stores import data_directory

WRITERS = 6
WRITES = 25
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_office() -> AsyncIterator[Office]:
    """A stack of this module's own: its processes are killed."""
    with data_directory() as path:
        async with EmbeddedStack(path / "data", RANDOM_PORTS) as stack:
            opening = await opened(stack)
            try:
                yield opening
            finally:
                await opening.brain.close()
                await opening.memory.close()


async def written(agent: Agent, text: str) -> str:
    """Write until it is acknowledged, as a client does: the same request again."""
    request = pb.RememberRequest(memory=memory_pb2.Memory(text=text), request_id=f"once-{text}")
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await agent.memory.Remember(request, metadata=agent.metadata, timeout=5, wait_for_ready=True)
            except grpc.aio.AioRpcError as failed:
                if failed.code() not in _RETRIED:
                    raise
            else:
                return answer.memory.memory_id


async def settled(office: Office, agent: Agent) -> None:
    """Wait until the brain's outbox is empty again."""
    async with asyncio.timeout(60):
        while True:
            try:
                outbox = await agent.operator.GetOutbox(
                    operator_pb.GetOutboxRequest(), metadata=office.admin_metadata, timeout=5, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as failed:
                if failed.code() not in _RETRIED:
                    raise
                continue
            assert 0 == outbox.dead_letters
            if not outbox.pending:
                return


@pytest.mark.parametrize("victim", ["brain", "memory", "postgres", "redis", "milvus"])
async def test_every_acknowledged_write_survives_the_death_of(own_office: Office, victim: ProcessName) -> None:
    office = own_office
    agent = await office.agent()
    acknowledged: dict[str, str] = {}
    half_way = asyncio.Event()

    async def write(writer: int) -> None:
        for number in range(WRITES):
            text = f"{victim} fell while writer {writer} wrote line {number}"
            acknowledged[text] = await written(agent, text)
            if len(acknowledged) >= WRITERS * WRITES // 3:
                half_way.set()

    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write(writer))
        await half_way.wait()
        before = office.stack.pids[victim]
        await office.stack.kill(victim)
        await office.stack.ready(victim)
    assert before != office.stack.pids[victim]
    await settled(office, agent)

    assert WRITERS * WRITES == len(set(acknowledged.values()))
    lost = {}
    for text, memory_id in acknowledged.items():
        if (await agent.get(memory_id)).text != text:
            lost[memory_id] = text
        found = await agent.recall(text, limit=1)
        if found.ids != [memory_id]:
            lost[memory_id] = f"recall of {text!r} found {found.texts}"
    assert {} == lost
    page = await agent.memory.List(pb.ListRequest(page_size=1000), metadata=agent.metadata, timeout=20)
    assert sorted(acknowledged) == sorted(memory.text for memory in page.memories)

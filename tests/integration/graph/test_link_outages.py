"""Links through an outage of the memory server, and after the death of every process."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma_contract.errors import Code
from soma_contract.ids import new_memory_id
from soma_contract.links import CO_RECALLED
from soma_embedded.stack import EmbeddedStack, ProcessName
from tests.integration.graph.agents import Linker, linker, refused
from tests.support.stack import RANDOM_PORTS, Office, opened
from tests.support.stores import data_directory

pytestmark = [pytest.mark.processes, pytest.mark.slow]
PATIENCE_S = 120


async def delivered(office: Office, agent: Linker) -> operator_pb.GetOutboxResponse:
    """Wait until nothing is pending in the brain."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            outbox = await agent.agent.operator.GetOutbox(
                operator_pb.GetOutboxRequest(), metadata=office.admin_metadata, timeout=20
            )
            if not outbox.pending:
                return outbox
            await asyncio.sleep(0.1)


async def linked(agent: Linker, memory_id: str) -> set[tuple[str, str, str]]:
    """The links of a memory, as soon as the servers answer again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                page = await agent.links(memory_id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)
                continue
            return {(link.source_id, link.relation, link.target_id) for link in page.links}


async def test_links_made_in_an_outage_are_stored_after_it_and_survive_the_death_of_all() -> None:
    with data_directory() as path:
        async with EmbeddedStack(path / "data", RANDOM_PORTS) as stack:
            office = await opened(stack)
            agent = await linker(office, "brain")
            a, b = await agent.remember("a", "b")
            stored = await agent.link(a, b)
            assert common.DURABILITY_STORED == stored.durability

            await stack.children["memory"].stop()
            c = new_memory_id()
            (remembered,) = await agent.remember("c", memory_id=c)
            queued = await agent.link(a, c, "supports", strength=0.5, request_id="queued")
            learnt = await agent.used_together([a, c], request_id="turn")
            unlinked = await agent.unlink(a, b)
            doomed = await agent.link(a, new_memory_id())
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await agent.link(a, b, if_match=1)
            conditional = refused(failed)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await agent.neighbors(a)
            assert Code.UNAVAILABLE == refused(failed).code == conditional.code
            assert [common.DURABILITY_QUEUED] * 4 == [
                queued.durability,
                learnt.durability,
                unlinked.durability,
                doomed.durability,
            ]
            assert (remembered, a, c, 0) == (c, queued.link.source_id, queued.link.target_id, queued.link.version)

            await stack.children["memory"].start()
            outbox = await delivered(office, agent)
            assert outbox.dead_letters == 1, "the link whose end was never made"
            first, second = sorted((a, c))
            expected = {(a, "supports", c), (first, CO_RECALLED, second)}
            assert expected == await linked(agent, a)
            again = await agent.link(a, c, "supports", strength=0.5, request_id="queued")
            assert (common.DURABILITY_STORED, 1) == (again.durability, again.link.version)

            victims: tuple[ProcessName, ...] = ("postgres", "memory", "brain")
            for name in victims:
                await stack.kill(name)
            for name in victims:
                await stack.ready(name)
            assert expected == await linked(agent, c)
            paths, _ = await agent.paths(c, a, relations=["supports"])
            assert [[c, a]] == [list(path.memory_ids) for path in paths]
            repeated = pb.UsedTogether(memory_ids=[a, c])
            told = await agent.reinforce([pb.ReinforceRequest(request_id="turn", sequence=1, used_together=repeated)])
            assert (0, 1) == (told.applied, told.repeated_frames)
            await office.brain.close()
            await office.memory.close()

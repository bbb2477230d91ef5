"""Agents that link memories, over either server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import pytest

from rpckit.status import error_from_rpc
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2_grpc as rpc
from soma_contract.errors import SomaError
from tests.support.stack import Agent, Office

SERVERS = ("brain", "memory")
NOWHERE = "0190b6a0-7c1e-7000-8000-000000000000"
"""The id of no memory."""


class Linker:
    """An agent of a tenant of its own, and its calls of GraphService."""

    def __init__(self, agent: Agent, channel: grpc.aio.Channel) -> None:
        self.agent = agent
        self.graph = rpc.GraphServiceStub(channel)
        self._call: dict[str, Any] = {"metadata": agent.metadata, "timeout": 20}

    async def remember(self, *texts: str, **fields: Any) -> list[str]:
        """Remember texts and return their ids."""
        return [(await self.agent.remember(text, **fields)).memory.memory_id for text in texts]

    async def link(self, source: str, target: str, relation: str = "", **fields: Any) -> pb.LinkResponse:
        """Link two memories by id."""
        request = pb.LinkRequest(source=by_id(source), target=by_id(target), relation=relation, **fields)
        return await self.graph.Link(request, **self._call)

    async def unlink(self, source: str, target: str, **fields: Any) -> pb.UnlinkResponse:
        """Remove a link."""
        return await self.graph.Unlink(
            pb.UnlinkRequest(source=by_id(source), target=by_id(target), **fields), **self._call
        )

    async def links(self, memory_id: str, **fields: Any) -> pb.GetLinksResponse:
        """Read one page of links."""
        return await self.graph.GetLinks(pb.GetLinksRequest(target=by_id(memory_id), **fields), **self._call)

    async def neighbors(self, memory_id: str, **fields: Any) -> tuple[list[pb.Neighbor], pb.GraphSummary]:
        """Read neighbours."""
        found: list[pb.Neighbor] = []
        async for frame in self.graph.Neighbors(pb.NeighborsRequest(target=by_id(memory_id), **fields), **self._call):
            if frame.HasField("summary"):
                return found, frame.summary
            found += frame.neighbors.neighbors
        raise AssertionError("a stream of neighbours ended without its summary")

    async def paths(self, source: str, target: str, **fields: Any) -> tuple[list[pb.MemoryPath], pb.GraphSummary]:
        """Find paths."""
        found: list[pb.MemoryPath] = []
        request = pb.FindPathRequest(source=by_id(source), target=by_id(target), **fields)
        async for frame in self.graph.FindPath(request, **self._call):
            if frame.HasField("summary"):
                return found, frame.summary
            found.append(frame.path)
        raise AssertionError("a stream of paths ended without its summary")

    async def subgraph(
        self, *memory_ids: str, **fields: Any
    ) -> tuple[dict[str, int], list[pb.MemoryLink], pb.GraphSummary]:
        """Read depths by memory id, and links."""
        depths: dict[str, int] = {}
        links: list[pb.MemoryLink] = []
        request = pb.SubgraphRequest(targets=map(by_id, memory_ids), **fields)
        async for frame in self.graph.Subgraph(request, **self._call):
            if frame.HasField("summary"):
                return depths, links, frame.summary
            ids = [memory.memory_id for memory in frame.nodes.memories]
            depths |= zip(ids, frame.nodes.depths, strict=True)
            links += frame.links.links
        raise AssertionError("a subgraph ended without its summary")

    async def rank(self, *memory_ids: str, **fields: Any) -> pb.RankResponse:
        """Rank a neighbourhood."""
        return await self.graph.Rank(pb.RankRequest(targets=map(by_id, memory_ids), **fields), **self._call)

    async def reinforce(self, frames: Iterable[pb.ReinforceRequest]) -> pb.ReinforceResponse:
        """Tell what was learnt."""
        return await self.graph.Reinforce(iter(frames), **self._call)

    async def used_together(
        self, memory_ids: Sequence[str], *, request_id: str, sequence: int = 1, plan_id: str = ""
    ) -> pb.ReinforceResponse:
        """Tell that memories were used together."""
        used = pb.UsedTogether(memory_ids=memory_ids, plan_id=plan_id)
        return await self.reinforce([pb.ReinforceRequest(request_id=request_id, sequence=sequence, used_together=used)])


async def linker(office: Office, through: str) -> Linker:
    """A linker of a new tenant."""
    agent = await office.agent(through=through)
    return Linker(agent, office.brain if through == "brain" else office.memory)


def by_id(memory_id: str) -> common.MemoryTarget:
    """The memory of an id."""
    return common.MemoryTarget(memory_id=memory_id)


def refused(failed: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> SomaError:
    """The error a call was refused with."""
    return error_from_rpc(failed.value)

"""GraphService on the memory server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from memory_server.core.linking import Linking
from memory_server.core.reinforcing import Reinforcing
from memory_server.core.traversing import Nodes, Traversing
from memory_server.servicers.memory import begin, origin_of
from rpckit.call import current_tenant
from rpckit.paging import fitting
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2_grpc as rpc
from soma_contract.convert.links import (
    evidence_from_pb,
    graph_summary_to_pb,
    link_from_pb,
    link_to_pb,
    linked_to_pb,
    neighbor_to_pb,
    neighbors_from_pb,
    nodes_to_pb,
    path_from_pb,
    path_to_pb,
    rank_from_pb,
    ranked_to_pb,
    reach_from_pb,
    reinforced_to_pb,
    subgraph_from_pb,
    unlink_from_pb,
)
from soma_contract.convert.memories import target_from_pb
from soma_contract.errors import FieldViolationError
from soma_contract.links import Evidence, GraphSummary, MemoryPath, Reinforced
from soma_contract.memory import Durability

FRAMES_TOGETHER = 64
"""So many frames of a Reinforce share a transaction."""


class GraphServicer(rpc.GraphServiceServicer):
    """Links of the calling tenant."""

    def __init__(self, linking: Linking, traversing: Traversing, reinforcing: Reinforcing) -> None:
        self._linking = linking
        self._traversing = traversing
        self._reinforcing = reinforcing

    async def Link(self, request: pb.LinkRequest, context: Any) -> pb.LinkResponse:
        call, checks = begin()
        command = link_from_pb(request, checks)
        checks.done()
        written = await self._linking.write(
            current_tenant(), command, origin=origin_of(call), deadline_s=call.remaining_s()
        )
        return linked_to_pb(written)

    async def Unlink(self, request: pb.UnlinkRequest, context: Any) -> pb.UnlinkResponse:
        call, checks = begin()
        command = unlink_from_pb(request, checks)
        checks.done()
        written = await self._linking.write(
            current_tenant(), command, origin=origin_of(call), deadline_s=call.remaining_s()
        )
        return pb.UnlinkResponse(durability=common.DURABILITY_STORED, revision=written.revision)

    async def GetLinks(self, request: pb.GetLinksRequest, context: Any) -> pb.GetLinksResponse:
        _, checks = begin()
        target = target_from_pb(request.target, request.HasField("target"), checks, "target")
        reach = reach_from_pb(request, checks)
        limit = checks.page_size("page_size", request.page_size)
        checks.done()
        page = await self._linking.page(current_tenant(), target, reach, limit=limit, page_token=request.page_token)
        wires = [link_to_pb(link) for link in page.links]
        fits = fitting([wire.ByteSize() for wire in wires])
        return pb.GetLinksResponse(links=wires[:fits], next_page_token=page.token_after(fits))

    async def Reinforce(
        self, request_iterator: AsyncIterator[pb.ReinforceRequest], context: Any
    ) -> pb.ReinforceResponse:
        total, waiting = Reinforced(), list[Evidence]()
        async for request in request_iterator:
            _, checks = begin()
            frame = evidence_from_pb(request, checks)
            checks.done()
            if waiting and frame.request_id != waiting[0].request_id:
                raise FieldViolationError.at("request_id", "must be the same on every frame of the stream")
            waiting.append(frame)
            if len(waiting) == FRAMES_TOGETHER:
                total = total.plus(await self._applied(waiting))
                waiting = []
        return reinforced_to_pb(total.plus(await self._applied(waiting)), Durability.STORED)

    async def _applied(self, frames: list[Evidence]) -> Reinforced:
        call, _ = begin()
        return await self._reinforcing.apply(
            current_tenant(), frames, origin=origin_of(call), deadline_s=call.remaining_s()
        )

    async def Neighbors(self, request: pb.NeighborsRequest, context: Any) -> AsyncIterator[pb.NeighborsResponse]:
        call, checks = begin()
        query = neighbors_from_pb(request, checks)
        checks.done()
        async with aclosing(
            self._traversing.neighbors(current_tenant(), query, deadline_s=call.remaining_s())
        ) as frames:
            async for frame in frames:
                if isinstance(frame, GraphSummary):
                    yield pb.NeighborsResponse(summary=graph_summary_to_pb(frame))
                    continue
                for part in _fitting([neighbor_to_pb(neighbor) for neighbor in frame]):
                    yield pb.NeighborsResponse(neighbors=pb.NeighborList(neighbors=part))

    async def FindPath(self, request: pb.FindPathRequest, context: Any) -> AsyncIterator[pb.FindPathResponse]:
        call, checks = begin()
        query = path_from_pb(request, checks)
        checks.done()
        async with aclosing(self._traversing.paths(current_tenant(), query, deadline_s=call.remaining_s())) as found:
            async for one in found:
                if isinstance(one, MemoryPath):
                    yield pb.FindPathResponse(path=path_to_pb(one))
                else:
                    yield pb.FindPathResponse(summary=graph_summary_to_pb(one))

    async def Subgraph(self, request: pb.SubgraphRequest, context: Any) -> AsyncIterator[pb.SubgraphResponse]:
        call, checks = begin()
        query = subgraph_from_pb(request, checks)
        checks.done()
        async with aclosing(
            self._traversing.subgraph(current_tenant(), query, deadline_s=call.remaining_s())
        ) as frames:
            async for frame in frames:
                if isinstance(frame, GraphSummary):
                    yield pb.SubgraphResponse(summary=graph_summary_to_pb(frame))
                elif isinstance(frame, Nodes):
                    for nodes in _fitting_nodes(frame):
                        yield pb.SubgraphResponse(nodes=nodes)
                else:
                    for part in _fitting([link_to_pb(link) for link in frame]):
                        yield pb.SubgraphResponse(links=pb.SubgraphLinks(links=part))

    async def Rank(self, request: pb.RankRequest, context: Any) -> pb.RankResponse:
        call, checks = begin()
        query = rank_from_pb(request, checks)
        checks.done()
        ranked, summary = await self._traversing.rank(current_tenant(), query, deadline_s=call.remaining_s())
        return ranked_to_pb(ranked, summary)


def _fitting(wires: list[Any]) -> list[list[Any]]:
    """Messages in groups that each fit into a frame."""
    groups = []
    while wires:
        fits = fitting([wire.ByteSize() for wire in wires])
        groups.append(wires[:fits])
        wires = wires[fits:]
    return groups


def _fitting_nodes(frame: Nodes) -> list[pb.SubgraphNodes]:
    whole = nodes_to_pb(frame.memories, frame.depths)
    depths = iter(frame.depths)
    return [
        pb.SubgraphNodes(memories=part, depths=[next(depths) for _ in part]) for part in _fitting(list(whole.memories))
    ]

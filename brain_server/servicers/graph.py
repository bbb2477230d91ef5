"""GraphService on the brain: changes outbox-first, reads from the memory server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from brain_server.core.linking import Linking
from brain_server.gateway.graph import GraphGateway
from brain_server.servicers.memory import begin
from rpckit.call import current_tenant
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.links import (
    evidence_from_pb,
    link_from_pb,
    link_to_pb,
    neighbors_from_pb,
    path_from_pb,
    rank_from_pb,
    reach_from_pb,
    reinforced_to_pb,
    subgraph_from_pb,
    unlink_from_pb,
)
from soma_contract.convert.memories import durability_to_pb, target_from_pb
from soma_contract.errors import FieldViolationError, SomaError
from soma_contract.links import Evidence


class GraphServicer(rpc.GraphServiceServicer):
    """Links of the calling tenant."""

    def __init__(self, linking: Linking, graph: GraphGateway) -> None:
        self._linking = linking
        self._graph = graph

    async def Link(self, request: pb.LinkRequest, context: Any) -> pb.LinkResponse:
        call, checks = begin()
        command = link_from_pb(request, checks)
        checks.done()
        done = await self._linking.write(current_tenant(), command, deadline_s=call.remaining_s())
        return pb.LinkResponse(
            link=link_to_pb(done.link) if done.link else None,
            durability=durability_to_pb(done.durability),
            revision=done.written.revision if done.written else 0,
            created=bool(done.written and done.written.created),
        )

    async def Unlink(self, request: pb.UnlinkRequest, context: Any) -> pb.UnlinkResponse:
        call, checks = begin()
        command = unlink_from_pb(request, checks)
        checks.done()
        done = await self._linking.write(current_tenant(), command, deadline_s=call.remaining_s())
        return pb.UnlinkResponse(
            durability=durability_to_pb(done.durability), revision=done.written.revision if done.written else 0
        )

    async def Reinforce(
        self, request_iterator: AsyncIterator[pb.ReinforceRequest], context: Any
    ) -> pb.ReinforceResponse:
        call, _ = begin()
        try:
            durability, reinforced = await self._linking.reinforce(
                current_tenant(), _frames(request_iterator), deadline_s=call.remaining_s()
            )
        except BaseExceptionGroup as group:
            raise _refusal(group) from None
        return reinforced_to_pb(reinforced, durability)

    async def GetLinks(self, request: pb.GetLinksRequest, context: Any) -> pb.GetLinksResponse:
        _, checks = begin()
        target_from_pb(request.target, request.HasField("target"), checks, "target")
        reach_from_pb(request, checks)
        checks.page_size("page_size", request.page_size)
        return await self._graph.get_links(current_tenant(), _scoped(request, checks))

    async def Neighbors(self, request: pb.NeighborsRequest, context: Any) -> AsyncIterator[pb.NeighborsResponse]:
        _, checks = begin()
        neighbors_from_pb(request, checks)
        async with aclosing(self._graph.neighbors(current_tenant(), _scoped(request, checks))) as frames:
            async for frame in frames:
                yield frame

    async def FindPath(self, request: pb.FindPathRequest, context: Any) -> AsyncIterator[pb.FindPathResponse]:
        _, checks = begin()
        path_from_pb(request, checks)
        async with aclosing(self._graph.find_path(current_tenant(), _scoped(request, checks))) as frames:
            async for frame in frames:
                yield frame

    async def Subgraph(self, request: pb.SubgraphRequest, context: Any) -> AsyncIterator[pb.SubgraphResponse]:
        _, checks = begin()
        subgraph_from_pb(request, checks)
        async with aclosing(self._graph.subgraph(current_tenant(), _scoped(request, checks))) as frames:
            async for frame in frames:
                yield frame

    async def Rank(self, request: pb.RankRequest, context: Any) -> pb.RankResponse:
        _, checks = begin()
        rank_from_pb(request, checks)
        return await self._graph.rank(current_tenant(), _scoped(request, checks))


async def _frames(requests: AsyncIterator[pb.ReinforceRequest]) -> AsyncIterator[Evidence]:
    first = ""
    async for request in requests:
        _, checks = begin()
        frame = evidence_from_pb(request, checks)
        checks.done()
        first = first or frame.request_id
        if frame.request_id != first:
            raise FieldViolationError.at("request_id", "must be the same on every frame of the stream")
        yield frame


def _scoped(request: Any, checks: Checks) -> Any:
    """The checked request as it is passed on: the call's default namespace does not travel, so it is written in."""
    checks.done()
    named: list[common.MemoryTarget] = []
    for field, value in request.ListFields():
        if field.name in ("target", "source"):
            named.append(value)
        elif field.name == "targets":
            named += value
    for target in named:
        which = target.WhichOneof("target")
        if which in ("key", "coordinate") and not getattr(target, which).namespace:
            getattr(target, which).namespace = checks.default_namespace
    return request


def _refusal(group: BaseException) -> BaseException:
    """The error of the frame that was refused, so that it keeps its code."""
    while isinstance(group, BaseExceptionGroup):
        group = next((one for one in group.exceptions if isinstance(one, SomaError)), group.exceptions[0])
    return group

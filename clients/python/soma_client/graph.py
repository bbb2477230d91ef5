"""The calls of GraphService, in the contract's own messages."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import datetime

import grpc

from rpckit.metadata import new_request_id
from soma.graph.v1 import graph_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2_grpc as rpc
from soma_client.bound import Bound
from soma_client.calling import Calls
from soma_client.iterating import each
from soma_client.naming import Named
from soma_contract.convert.memories import target_to_pb, timestamp

DIRECTIONS = {
    "both": pb.DIRECTION_BOTH,
    "outgoing": pb.DIRECTION_OUTGOING,
    "incoming": pb.DIRECTION_INCOMING,
}


class GraphCalls(Bound):
    """Links between memories and what follows from them; streams end with a frame that holds the summary."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._graph = rpc.GraphServiceStub(calls.channel)

    async def link(
        self,
        source: Named,
        target: Named,
        relation: str = "related",
        *,
        strength: float | None = None,
        metadata_json: str = "",
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
        if_match: int | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> pb.LinkResponse:
        """Link two memories; the same link again takes the new strength."""
        request_id = request_id or new_request_id()
        request = pb.LinkRequest(
            source=target_to_pb(self._target(source)),
            target=target_to_pb(self._target(target)),
            relation=relation,
            strength=strength,
            metadata_json=metadata_json,
            valid_from_time=timestamp(valid_from),
            valid_until_time=timestamp(valid_until),
            if_match=if_match,
            request_id=request_id,
        )
        return await self._calls.unary(self._graph.Link, request, timeout_s, request_id)

    async def unlink(
        self,
        source: Named,
        target: Named,
        relation: str = "related",
        *,
        if_match: int | None = None,
        allow_missing: bool = False,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> pb.UnlinkResponse:
        """Delete a link; raises LinkNotFoundError unless ``allow_missing``."""
        request_id = request_id or new_request_id()
        request = pb.UnlinkRequest(
            source=target_to_pb(self._target(source)),
            target=target_to_pb(self._target(target)),
            relation=relation,
            if_match=if_match,
            allow_missing=allow_missing,
            request_id=request_id,
        )
        return await self._calls.unary(self._graph.Unlink, request, timeout_s, request_id)

    async def get_links(
        self,
        memory: Named,
        *,
        direction: str = "both",
        relations: Iterable[str] = (),
        min_strength: float = 0.0,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.MemoryLink]:
        """Iterate over the links of a memory, page by page."""
        request = pb.GetLinksRequest(
            target=target_to_pb(self._target(memory)),
            direction=DIRECTIONS[direction],
            relations=relations,
            min_strength=min_strength,
            page_size=page_size,
        )
        while True:
            page = await self._calls.unary(self._graph.GetLinks, request, timeout_s)
            for link in page.links:
                yield link
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def neighbors(
        self,
        memory: Named,
        *,
        k_hop: int = 1,
        direction: str = "both",
        relations: Iterable[str] = (),
        min_strength: float = 0.0,
        limit: int = 0,
        include_memories: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.NeighborsResponse]:
        """Iterate over frames of neighbours, nearest and strongest first."""
        request = pb.NeighborsRequest(
            target=target_to_pb(self._target(memory)),
            k_hop=k_hop,
            direction=DIRECTIONS[direction],
            relations=relations,
            min_strength=min_strength,
            limit=limit,
            include_memories=include_memories,
        )
        async for frame in self._calls.stream(self._graph.Neighbors, request, timeout_s):
            yield frame

    async def find_path(
        self,
        source: Named,
        target: Named,
        *,
        max_length: int = 0,
        max_paths: int = 0,
        direction: str = "both",
        relations: Iterable[str] = (),
        min_strength: float = 0.0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.FindPathResponse]:
        """Iterate over paths, cheapest first; no path is only a summary."""
        request = pb.FindPathRequest(
            source=target_to_pb(self._target(source)),
            target=target_to_pb(self._target(target)),
            max_length=max_length,
            max_paths=max_paths,
            direction=DIRECTIONS[direction],
            relations=relations,
            min_strength=min_strength,
        )
        async for frame in self._calls.stream(self._graph.FindPath, request, timeout_s):
            yield frame

    async def subgraph(
        self,
        memories: Sequence[Named],
        *,
        radius: int = 0,
        max_nodes: int = 0,
        relations: Iterable[str] = (),
        min_strength: float = 0.0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.SubgraphResponse]:
        """Iterate over nodes, then links, around some memories."""
        request = pb.SubgraphRequest(
            targets=[target_to_pb(self._target(memory)) for memory in memories],
            radius=radius,
            max_nodes=max_nodes,
            relations=relations,
            min_strength=min_strength,
        )
        async for frame in self._calls.stream(self._graph.Subgraph, request, timeout_s):
            yield frame

    async def rank(
        self,
        memories: Sequence[Named],
        *,
        radius: int = 0,
        damping: float | None = None,
        limit: int = 0,
        relations: Iterable[str] = (),
        timeout_s: float | None = None,
    ) -> pb.RankResponse:
        """Personalised PageRank around some memories."""
        request = pb.RankRequest(
            targets=[target_to_pb(self._target(memory)) for memory in memories],
            radius=radius,
            damping=damping,
            limit=limit,
            relations=relations,
        )
        return await self._calls.unary(self._graph.Rank, request, timeout_s)

    async def reinforce(
        self,
        frames: Iterable[pb.ReinforceRequest] | AsyncIterable[pb.ReinforceRequest],
        *,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> pb.ReinforceResponse:
        """Tell which memories were used together; frames without a request id and sequence are numbered here."""
        request_id = request_id or new_request_id()
        call = self._graph.Reinforce(
            _numbered(frames, request_id), timeout=timeout_s, metadata=self._calls.metadata(request_id)
        )
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._calls.error(error) from error

    async def used_together(self, *memory_ids: str, plan_id: str = "") -> pb.ReinforceResponse:
        """Tell of one set of memories that were used together."""
        used = pb.UsedTogether(memory_ids=memory_ids, plan_id=plan_id)
        return await self.reinforce([pb.ReinforceRequest(used_together=used)])


async def _numbered(
    frames: Iterable[pb.ReinforceRequest] | AsyncIterable[pb.ReinforceRequest], request_id: str
) -> AsyncIterator[pb.ReinforceRequest]:
    sequence = 0
    async for frame in each(frames):
        sequence += 1
        if not frame.request_id:
            frame.request_id, frame.sequence = request_id, sequence
        yield frame

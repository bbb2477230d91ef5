"""GraphService of the memory server, and the way of links through the outbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from brain_server.core.linking import Change
from brain_server.domain.entry import Draft, Entry
from brain_server.gateway.delivery import Delivery, Stored
from brain_server.gateway.sending import ATTEMPT_S
from brain_server.gateway.wire import MemoryWire
from brain_server.ports import Sender
from soma.graph.v1 import graph_service_pb2 as pb
from soma.graph.v1.graph_service_pb2_grpc import GraphServiceStub
from soma_contract.convert.checks import Checks
from soma_contract.convert.links import (
    evidence_from_pb,
    evidence_to_pb,
    link_command_to_pb,
    link_from_pb,
    link_of_pb,
    unlink_from_pb,
    unlink_to_pb,
)
from soma_contract.links import Evidence, LinkWritten, MakeLink, Reinforced, RemoveLink
from soma_contract.memory import Origin
from soma_contract.tenant import Tenant

LINK, UNLINK, REINFORCE = "link", "unlink", "reinforce"
OPERATIONS = frozenset({LINK, UNLINK, REINFORCE})


def encoded_change(change: Change) -> tuple[str, bytes]:
    """Return the operation's name and the change as bytes: the request messages of the contract."""
    match change:
        case MakeLink():
            return LINK, link_command_to_pb(change).SerializeToString(deterministic=True)
        case RemoveLink():
            return UNLINK, unlink_to_pb(change).SerializeToString(deterministic=True)
        case Evidence():
            return REINFORCE, evidence_to_pb(change).SerializeToString(deterministic=True)


def decoded_change(operation: str, content: bytes) -> Change:
    """Return the change again; raises ValueError for an operation this brain does not know."""
    checks = Checks()
    match operation:
        case "link":
            return link_from_pb(pb.LinkRequest.FromString(content), checks)
        case "unlink":
            return unlink_from_pb(pb.UnlinkRequest.FromString(content), checks)
        case "reinforce":
            return evidence_from_pb(pb.ReinforceRequest.FromString(content), checks)
        case _:
            raise ValueError(f"unknown operation {operation}")


@dataclass(frozen=True, slots=True)
class GraphGateway:
    """The LongTermLinks port over gRPC; reads are passed on as they are."""

    wire: MemoryWire

    @property
    def _stub(self) -> GraphServiceStub:
        return GraphServiceStub(self.wire.channel)

    async def change(
        self,
        tenant: Tenant,
        change: Change,
        *,
        origin: Origin | None = None,
        request_id: str | None = None,
        most_s: float | None = None,
    ) -> LinkWritten | Reinforced:
        """Commit one change; ``request_id`` is the call's, the change carries its own."""
        stub = self._stub
        rpc: Any
        request: Any
        match change:
            case MakeLink():
                rpc, request = stub.Link, link_command_to_pb(change)
            case RemoveLink():
                rpc, request = stub.Unlink, unlink_to_pb(change)
            case Evidence():
                rpc, request = stub.Reinforce, iter([evidence_to_pb(change)])
        answer = await self.wire.unary(rpc, request, tenant, origin=origin, request_id=request_id, most_s=most_s)
        if isinstance(change, Evidence):
            return Reinforced(answer.applied, answer.repeated_frames, answer.unknown_ids, answer.revision)
        link = link_of_pb(answer.link) if isinstance(change, MakeLink) and answer.HasField("link") else None
        return LinkWritten(link, answer.revision, created=isinstance(change, MakeLink) and answer.created)

    async def get_links(self, tenant: Tenant, request: pb.GetLinksRequest) -> pb.GetLinksResponse:
        """Read a page of links."""
        answer: pb.GetLinksResponse = await self.wire.unary(self._stub.GetLinks, request, tenant)
        return answer

    async def rank(self, tenant: Tenant, request: pb.RankRequest) -> pb.RankResponse:
        """Rank a neighbourhood."""
        answer: pb.RankResponse = await self.wire.unary(self._stub.Rank, request, tenant)
        return answer

    def neighbors(self, tenant: Tenant, request: pb.NeighborsRequest) -> AsyncGenerator[pb.NeighborsResponse, None]:
        """Pass frames of neighbours on."""
        return _passed(self.wire.stream(self._stub.Neighbors, request, tenant))

    def find_path(self, tenant: Tenant, request: pb.FindPathRequest) -> AsyncGenerator[pb.FindPathResponse, None]:
        """Pass paths on."""
        return _passed(self.wire.stream(self._stub.FindPath, request, tenant))

    def subgraph(self, tenant: Tenant, request: pb.SubgraphRequest) -> AsyncGenerator[pb.SubgraphResponse, None]:
        """Pass frames of a subgraph on."""
        return _passed(self.wire.stream(self._stub.Subgraph, request, tenant))


@dataclass(frozen=True, slots=True)
class GraphSender:
    """The Sender port for all entries: changes of links here, the rest by ``memories``."""

    memories: Sender
    graph: GraphGateway

    async def send(self, entry: Entry, payload: bytes) -> Any:
        """Store the entry; sending it twice has the effect of once, by its request id."""
        if entry.operation not in OPERATIONS:
            return await self.memories.send(entry, payload)
        return await self.graph.change(
            entry.tenant,
            decoded_change(entry.operation, payload),
            origin=Origin(entry.brain_id, entry.origin_at),
            request_id=entry.entry_id,
            most_s=ATTEMPT_S,
        )


@dataclass(frozen=True, slots=True)
class OutboxChanges:
    """The SubmitChange port on a delivery."""

    delivery: Delivery

    async def __call__(self, tenant: Tenant, draft: Draft, deadline_s: float | None) -> LinkWritten | Reinforced | None:
        """Append and send one change."""
        answer = await self.delivery.submit(tenant, draft, deadline_s)
        if not isinstance(answer, Stored):
            return None
        stored: LinkWritten | Reinforced = answer.result
        return stored


async def _passed(frames: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """The frames of a call that ends with whoever reads it."""
    assert isinstance(frames, AsyncGenerator)
    async with aclosing(frames):
        async for frame in frames:
            yield frame

"""Looking after the one server process that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from soma_client.calling import Calls


class OperatorCalls:
    """OperatorService, in the contract's own messages; what a server has not raises FeatureDisabledError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._operator = rpc.OperatorServiceStub(calls.channel)

    async def server_info(self) -> pb.GetServerInfoResponse:
        """Version, limits and services of the server."""
        return await self._calls.unary(self._operator.GetServerInfo, pb.GetServerInfoRequest())

    async def who_am_i(self) -> pb.WhoAmIResponse:
        """Whom the server takes this client for."""
        return await self._calls.unary(self._operator.WhoAmI, pb.WhoAmIRequest())

    async def components(self, names: Iterable[str] = ()) -> pb.GetComponentsResponse:
        """How the stores and servers behind it are, within 2 s."""
        return await self._calls.unary(self._operator.GetComponents, pb.GetComponentsRequest(names=names))

    async def index_status(self, tenant: str = "") -> pb.GetIndexStatusResponse:
        """How far the index is behind the truth."""
        return await self._calls.unary(self._operator.GetIndexStatus, pb.GetIndexStatusRequest(tenant=tenant))

    async def pause_indexer(self, paused: bool = True, max_pause_s: float | None = None) -> pb.PauseIndexerResponse:
        """Let the indexer rest, or go on."""
        request = pb.PauseIndexerRequest(paused=paused)
        if max_pause_s is not None:
            request.max_pause.FromNanoseconds(round(max_pause_s * 1e9))
        return await self._calls.unary(self._operator.PauseIndexer, request)

    async def outbox(self, tenant: str = "") -> pb.GetOutboxResponse:
        """State of the brain's outbox."""
        return await self._calls.unary(self._operator.GetOutbox, pb.GetOutboxRequest(tenant=tenant))

    async def breakers(self, *, not_closed: bool = False) -> AsyncIterator[pb.Breaker]:
        """Iterate over the circuit breakers."""
        request = pb.ListBreakersRequest(not_closed=not_closed)
        while True:
            page = await self._calls.unary(self._operator.ListBreakers, request)
            for breaker in page.breakers:
                yield breaker
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def drain(self, grace_s: float | None = None) -> pb.DrainResponse:
        """Begin to shut the server down; there is no way back."""
        request = pb.DrainRequest()
        if grace_s is not None:
            request.grace.FromNanoseconds(round(grace_s * 1e9))
        return await self._calls.unary(self._operator.Drain, request)

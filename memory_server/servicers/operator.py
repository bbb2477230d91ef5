"""OperatorService on the memory server."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection as Names
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from memory_server.core.indexing import Indexing
from memory_server.ports import Clock, IndexQueue
from rpckit.call import current_call, current_caller
from rpckit.health import Health
from rpckit.interceptors.admission import Drain
from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from soma_contract.convert.memories import timestamp
from soma_contract.convert.operations import (
    ComponentState,
    EmbeddingIdentity,
    ServerIdentity,
    components_to_pb,
    server_info_to_pb,
    who_am_i_to_pb,
)
from soma_contract.errors import FeatureDisabledError
from soma_contract.tenant import admin_tenant


@dataclass(frozen=True, slots=True)
class Operations:
    """What the operator's calls look at."""

    server: ServerIdentity
    embedding: EmbeddingIdentity
    health: Health
    drain: Drain
    clock: Clock
    queue: IndexQueue
    indexing: Indexing | None
    stop: Callable[[], None]
    essential: Names[str]


class OperatorServicer(rpc.OperatorServiceServicer):
    """What operators see of this server."""

    def __init__(self, operations: Operations) -> None:
        self._on = operations

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        draining = self._on.drain.started.is_set()
        return server_info_to_pb(self._on.server, self._on.embedding, self._on.clock.now(), draining=draining)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        call = current_call()
        return who_am_i_to_pb(current_caller(), call.tenant, call.persona, call.session)

    async def GetComponents(self, request: pb.GetComponentsRequest, context: Any) -> pb.GetComponentsResponse:
        reports = await self._on.health.refresh()
        return components_to_pb(
            ComponentState(
                report.name,
                report.state.value,
                report.latency_s,
                report.since,
                report.last_error,
                report.name in self._on.essential,
            )
            for report in reports
            if not request.names or report.name in request.names
        )

    async def GetIndexStatus(self, request: pb.GetIndexStatusRequest, context: Any) -> pb.GetIndexStatusResponse:
        tenant = admin_tenant(request.tenant, reason="an operator asks") if request.tenant else None
        lag = await self._on.queue.lag(tenant)
        wire = pb.GetIndexStatusResponse(
            pending_rows=lag.rows,
            poisoned_rows=lag.poisoned,
            paused=self._on.indexing is None or self._on.indexing.paused,
        )
        wire.oldest_age.FromNanoseconds(int(lag.oldest_s * 1e9))
        return wire

    async def PauseIndexer(self, request: pb.PauseIndexerRequest, context: Any) -> pb.PauseIndexerResponse:
        if self._on.indexing is None:
            raise FeatureDisabledError(feature="indexer")
        was_paused, seconds = self._on.indexing.paused, request.max_pause.ToNanoseconds() / 1e9
        resume_at = self._on.indexing.pause(request.paused, seconds or None)
        return pb.PauseIndexerResponse(
            was_paused=was_paused,
            resume_time=timestamp(self._on.clock.now() + timedelta(seconds=resume_at)) if resume_at else None,
        )

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:
        self._on.stop()
        return pb.DrainResponse()

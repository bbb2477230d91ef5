"""BatchService and WatchService on the brain: two rpcs are its own, the rest it passes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc

from brain_server.core.batching import Batching
from brain_server.core.recalling import Recalling
from brain_server.gateway.passthrough import Passthrough
from brain_server.servicers.memory import begin
from rpckit.call import current_tenant
from rpckit.correlated import CorrelatedStream
from rpckit.interceptors.admission import Drain
from soma.batch.v1 import batch_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma.memory.v1 import watch_service_pb2 as watch_pb
from soma_contract.convert.batches import (
    RECALLS_IN_FLIGHT,
    WriteRecalled,
    refused_recall,
    remember_batch_from_pb,
    remember_batch_to_pb,
)
from soma_contract.convert.recalls import hit_to_pb, query_from_pb, summary_to_pb
from soma_contract.convert.streams import RECONNECT_AFTER_S
from soma_contract.errors import DrainingError
from soma_contract.recall import Hit

BATCH = "soma.batch.v1.BatchService"
# By its descriptor: its messages pass through as bytes, and reflection has to know them all the same.
WATCH = watch_pb.DESCRIPTOR.services_by_name["WatchService"].full_name
_UNARY = ("CreateImport", "GetImport", "ListImportErrors", "CancelImport")


class BatchServicer:
    """Batches see what waits in the outbox, recalls working memory too; everything else is the memory server's."""

    def __init__(self, batching: Batching, recalling: Recalling, passing: Passthrough, drain: Drain) -> None:
        self._batching = batching
        self._recalling = recalling
        self._passing = passing
        self._drain = drain

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve both services."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "RememberBatch": grpc.unary_unary_rpc_method_handler(
                self.RememberBatch,
                request_deserializer=pb.RememberBatchRequest.FromString,
                response_serializer=pb.RememberBatchResponse.SerializeToString,
            ),
            "RecallMany": grpc.stream_stream_rpc_method_handler(
                self.RecallMany,
                request_deserializer=pb.RecallManyRequest.FromString,
                response_serializer=pb.RecallManyResponse.SerializeToString,
            ),
            "ImportRecords": self._passing.duplex(f"/{BATCH}/ImportRecords", _import_drain),
            "ExportRecords": self._passing.answers(f"/{BATCH}/ExportRecords"),
        }
        handlers |= {name: self._passing.unary(f"/{BATCH}/{name}") for name in _UNARY}
        watch = {"Watch": self._passing.answers(f"/{WATCH}/Watch")}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(BATCH, handlers),
                grpc.method_handlers_generic_handler(WATCH, watch),
            )
        )

    async def RememberBatch(self, request: pb.RememberBatchRequest, context: Any) -> pb.RememberBatchResponse:
        """Store a batch."""
        call, checks = begin()
        items = remember_batch_from_pb(
            request, namespace=checks.default_namespace, persona=call.persona, session=call.session
        )
        return remember_batch_to_pb(await self._batching.remember(current_tenant(), items, atomic=request.atomic))

    async def RecallMany(self, request_iterator: AsyncIterator[pb.RecallManyRequest], context: Any) -> None:
        """Answer queries as they come."""
        stream = CorrelatedStream(
            self._recall, refused_recall, context.write, self._drain.started, in_flight=RECALLS_IN_FLIGHT
        )
        if await stream.run(request_iterator):
            raise DrainingError

    async def _recall(self, request: pb.RecallManyRequest, write: WriteRecalled) -> None:
        call, checks = begin()
        query = query_from_pb(request.recall, checks, "recall")
        checks.done()
        answer = await self._recalling.recall(
            current_tenant(),
            query,
            namespace=checks.default_namespace,
            session_id=call.session,
            deadline_s=call.remaining_s(),
        )
        for hit in answer.hits:
            wire = hit_to_pb(hit, query.view) if isinstance(hit, Hit) else cast("memory_pb.RecallHit", hit.wire)
            await write(pb.RecallManyResponse(correlation_id=request.correlation_id, hit=wire))
        summary = summary_to_pb(answer.summary)
        await write(pb.RecallManyResponse(correlation_id=request.correlation_id, summary=summary))


def _import_drain() -> bytes:
    drain = pb.ImportDrain()
    drain.reconnect_after.FromSeconds(RECONNECT_AFTER_S)
    return pb.ImportRecordsResponse(drain=drain).SerializeToString()

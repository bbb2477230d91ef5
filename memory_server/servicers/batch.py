"""BatchService on the memory server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from memory_server.core.recalling import Recalling
from memory_server.core.writing import Writing
from memory_server.servicers.memory import begin, origin_of
from rpckit.call import current_tenant
from rpckit.correlated import CorrelatedStream
from rpckit.interceptors.admission import Drain
from soma.batch.v1 import batch_service_pb2 as pb
from soma.batch.v1 import batch_service_pb2_grpc as rpc
from soma_contract.convert.batches import (
    RECALLS_IN_FLIGHT,
    WriteRecalled,
    refused_recall,
    remember_batch_from_pb,
    remember_batch_to_pb,
)
from soma_contract.convert.recalls import hit_to_pb, query_from_pb, summary_to_pb
from soma_contract.errors import DrainingError, SomaError, field_path
from soma_contract.memory import Command


class BatchServicer(rpc.BatchServiceServicer):
    """Bulk work of the calling tenant."""

    def __init__(self, writing: Writing, recalling: Recalling, drain: Drain) -> None:
        self._writing = writing
        self._recalling = recalling
        self._drain = drain

    async def RememberBatch(self, request: pb.RememberBatchRequest, context: Any) -> pb.RememberBatchResponse:
        call, checks = begin()
        read = remember_batch_from_pb(
            request, namespace=checks.default_namespace, persona=call.persona, session=call.session
        )
        commands: list[Command] = []
        for position, one in enumerate(read):
            if not isinstance(one, SomaError):
                with field_path(f"items[{position}]" if request.atomic else ""):
                    commands.append(self._writing.prepared(one) if request.atomic else one)
        written = iter(
            await self._writing.write_many(
                current_tenant(),
                commands,
                origin=origin_of(call),
                atomic=request.atomic,
                deadline_s=call.remaining_s(),
            )
        )
        return remember_batch_to_pb([one if isinstance(one, SomaError) else next(written) for one in read])

    async def RecallMany(  # type: ignore[override] # a coroutine that writes is a stream handler too
        self, request_iterator: AsyncIterator[pb.RecallManyRequest], context: Any
    ) -> None:
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
            current_tenant(), query, namespace=checks.default_namespace, deadline_s=call.remaining_s()
        )
        for hit in answer.hits:
            frame = pb.RecallManyResponse(correlation_id=request.correlation_id, hit=hit_to_pb(hit, query.view))
            await write(frame)
        summary = summary_to_pb(answer.summary)
        await write(pb.RecallManyResponse(correlation_id=request.correlation_id, summary=summary))

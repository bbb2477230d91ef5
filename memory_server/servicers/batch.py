"""BatchService on the memory server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from memory_server.core.exporting import Exporting
from memory_server.core.import_stream import FrameOut, ImportStream
from memory_server.core.importing import Importing
from memory_server.core.recalling import Recalling
from memory_server.core.writing import Writing
from memory_server.domain.exports import Export
from memory_server.pacing import Pace
from memory_server.servicers.import_frames import frame_out, frames_in, import_id_from_pb
from memory_server.servicers.memory import begin, origin_of
from memory_server.servicers.pages import RefusalToken
from rpckit.call import current_caller, current_tenant
from rpckit.correlated import CorrelatedStream
from rpckit.interceptors.admission import Drain
from rpckit.paging import fitting
from soma.batch.v1 import batch_service_pb2 as pb
from soma.batch.v1 import batch_service_pb2_grpc as rpc
from soma_contract.convert.batches import (
    RECALLS_IN_FLIGHT,
    WriteRecalled,
    refused_recall,
    remember_batch_from_pb,
    remember_batch_to_pb,
)
from soma_contract.convert.filters import filter_from_pb
from soma_contract.convert.recalls import hit_to_pb, query_from_pb, summary_to_pb
from soma_contract.convert.records import import_job_to_pb, import_options_from_pb, record_to_pb, refused_to_pb
from soma_contract.errors import DrainingError, ScopeMissingError, SomaError, field_path
from soma_contract.filters import AllOf, Filter, LabelField, LabelIn, namespaces_of
from soma_contract.memory import Command
from soma_contract.tenant import Caller


class BatchServicer(rpc.BatchServiceServicer):
    """Bulk work of the calling tenant."""

    def __init__(
        self, writing: Writing, recalling: Recalling, importing: Importing, exporting: Exporting, drain: Drain
    ) -> None:
        self._writing = writing
        self._recalling = recalling
        self._importing = importing
        self._exporting = exporting
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

    async def CreateImport(self, request: pb.CreateImportRequest, context: Any) -> pb.CreateImportResponse:
        _, checks = begin()
        options = import_options_from_pb(request, checks)
        checks.done()
        return pb.CreateImportResponse(job=import_job_to_pb(await self._importing.create(current_tenant(), options)))

    async def ImportRecords(  # type: ignore[override] # a coroutine that writes is a stream handler too
        self, request_iterator: AsyncIterator[pb.ImportRecordsRequest], context: Any
    ) -> None:
        async def send(frame: FrameOut) -> None:
            await context.write(frame_out(frame))

        _, checks = begin()
        stream = ImportStream(self._importing, current_tenant(), self._drain.started, send)
        await stream.run(frames_in(request_iterator, checks.default_namespace))

    async def GetImport(self, request: pb.GetImportRequest, context: Any) -> pb.GetImportResponse:
        import_id = import_id_from_pb(request.import_id)
        return pb.GetImportResponse(job=import_job_to_pb(await self._importing.get(current_tenant(), import_id)))

    async def CancelImport(self, request: pb.CancelImportRequest, context: Any) -> pb.CancelImportResponse:
        import_id = import_id_from_pb(request.import_id)
        return pb.CancelImportResponse(job=import_job_to_pb(await self._importing.cancel(current_tenant(), import_id)))

    async def ListImportErrors(self, request: pb.ListImportErrorsRequest, context: Any) -> pb.ListImportErrorsResponse:
        _, checks = begin()
        limit = checks.page_size("page_size", request.page_size)
        checks.done()
        import_id = import_id_from_pb(request.import_id)
        token = RefusalToken.parse(request.page_token, current_tenant(), import_id)
        page = await self._importing.refusals(current_tenant(), import_id, after=token.after, limit=limit + 1)
        wires = [refused_to_pb(refused) for refused in page[:limit]]
        fits = fitting([wire.ByteSize() for wire in wires])
        more = len(page) > fits
        return pb.ListImportErrorsResponse(
            refused=wires[:fits], next_page_token=token.following(wires[fits - 1].offset) if more else ""
        )

    async def ExportRecords(
        self, request: pb.ExportRecordsRequest, context: Any
    ) -> AsyncIterator[pb.ExportRecordsResponse]:
        _, checks = begin()
        filter = filter_from_pb(request.filter, checks)
        checks.done()
        export = Export(_confined(filter, current_caller()), request.include_embeddings, request.include_links)
        async for frame in self._exporting.export(current_tenant(), export, request.cursor):
            wire = pb.ExportRecordsResponse(cursor=frame.cursor, revision=frame.revision)
            pace = Pace()
            for record in frame.records:
                wire.records.append(record_to_pb(record))
                await pace.step()
            yield wire


def _confined(filter: Filter, caller: Caller) -> Filter:
    """The filter, for credentials that reach only some namespaces within those it names."""
    if not caller.namespaces:
        return filter
    named = namespaces_of(filter)
    if not named:
        raise ScopeMissingError(
            "these credentials are confined to namespaces; name those to export", scope="namespace:*"
        )
    caller.require_namespaces(named)
    return AllOf((LabelIn(LabelField.NAMESPACE, named), filter))

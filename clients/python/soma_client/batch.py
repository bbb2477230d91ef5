"""The calls of BatchService and WatchService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence

import grpc

from rpckit.metadata import new_request_id
from soma.batch.v1 import batch_service_pb2 as pb
from soma.batch.v1 import batch_service_pb2_grpc as rpc
from soma.memory.v1 import watch_service_pb2, watch_service_pb2_grpc
from soma_client.answers import Outcome, read_remembered
from soma_client.bound import Bound
from soma_client.calling import Calls
from soma_client.import_run import PATIENCE_S, ImportCall, ImportRun
from soma_client.iterating import each
from soma_client.naming import filter_in
from soma_client.reading import asked_for
from soma_client.record_feed import CHUNK_RECORDS, RecordFeed, Records
from soma_client.writing import command_of
from soma_client.writing_many import Writable
from soma_contract.convert.filters import filter_to_pb
from soma_contract.convert.item_errors import item_error_from_pb
from soma_contract.convert.memories import remember_to_pb
from soma_contract.convert.recalls import hit_from_pb, query_to_pb, summary_from_pb
from soma_contract.errors import SomaError
from soma_contract.filters import EVERYTHING, Filter
from soma_contract.limits import LIMITS
from soma_contract.recall import Hit, Recalled, RecallQuery

CONFLICTS = {
    "skip": pb.IMPORT_CONFLICT_SKIP,
    "overwrite": pb.IMPORT_CONFLICT_OVERWRITE,
    "fail": pb.IMPORT_CONFLICT_FAIL,
}


class BatchCalls(Bound):
    """Many writes or recalls at once, import and export, and the feed of changes."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._batch = rpc.BatchServiceStub(calls.channel)
        self._watch = watch_service_pb2_grpc.WatchServiceStub(calls.channel)

    async def remember_batch(
        self, items: Sequence[Writable], *, atomic: bool = False, timeout_s: float | None = None
    ) -> tuple[Outcome, ...]:
        """Store at most 500 in one call; ``atomic`` stores all or none."""
        commands = [command_of(item, self.namespace) for item in items]
        request = pb.RememberBatchRequest(items=map(remember_to_pb, commands), atomic=atomic)
        answer = await self._calls.unary(self._batch.RememberBatch, request, timeout_s)
        return tuple(
            Outcome(position, remembered=read_remembered(item.remembered))
            if item.WhichOneof("outcome") == "remembered"
            else Outcome(position, error=item_error_from_pb(item.error))
            for position, item in enumerate(answer.items)
        )

    async def recall_many(
        self, queries: Iterable[str | RecallQuery] | AsyncIterable[str | RecallQuery]
    ) -> AsyncIterator[tuple[int, Recalled | SomaError]]:
        """Recall several over one stream; yields (place of the query, its answer or its error) as they finish."""
        call = self._batch.RecallMany(self._recalls(queries), metadata=self._calls.metadata())
        hits: dict[str, list[Hit]] = {}
        try:
            async for frame in call:
                position = int(frame.correlation_id)
                match frame.WhichOneof("outcome"):
                    case "hit":
                        hits.setdefault(frame.correlation_id, []).append(hit_from_pb(frame.hit))
                    case "summary":
                        found = tuple(hits.pop(frame.correlation_id, []))
                        yield position, Recalled(found, summary_from_pb(frame.summary))
                    case "error":
                        hits.pop(frame.correlation_id, None)
                        yield position, item_error_from_pb(frame.error)
        except grpc.aio.AioRpcError as error:
            raise await self._calls.fed_stream_error(error, self._batch.RecallMany) from error
        finally:
            call.cancel()

    async def _recalls(
        self, queries: Iterable[str | RecallQuery] | AsyncIterable[str | RecallQuery]
    ) -> AsyncGenerator[pb.RecallManyRequest, None]:
        position = 0
        async for query in each(queries):
            yield pb.RecallManyRequest(
                correlation_id=str(position), recall=query_to_pb(asked_for(query, self.namespace))
            )
            position += 1

    async def create_import(
        self,
        *,
        on_conflict: str = "skip",
        max_refused: int | None = None,
        dry_run: bool = False,
        label: str = "",
        request_id: str = "",
    ) -> pb.ImportJob:
        """Open an import job; ``on_conflict`` is skip, overwrite or fail."""
        request_id = request_id or new_request_id()
        request = pb.CreateImportRequest(
            on_conflict=CONFLICTS[on_conflict],
            max_refused=max_refused,
            dry_run=dry_run,
            label=label,
            request_id=request_id,
        )
        return (await self._calls.unary(self._batch.CreateImport, request, None, request_id)).job

    async def import_records(
        self,
        import_id: str,
        records: Records,
        *,
        chunk_records: int = CHUNK_RECORDS,
        on_ack: Callable[[pb.ImportAck], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> pb.ImportJob:
        """Send all records of a job from its first one on, and finish it; returns the finished job.

        Survives broken connections and servers that restart; without progress for ``patience_s`` it gives up with the
        error at hand. What the job has dealt with already is passed over, so a process that died is followed by one
        that calls this with the same records.
        """
        feed = RecordFeed(records, chunk_records)
        try:
            return await ImportRun(self, import_id, feed, patience_s=patience_s, on_ack=on_ack).run()
        finally:
            await feed.close()

    async def get_import(self, import_id: str) -> pb.ImportJob:
        """Read an import job."""
        return (await self._calls.unary(self._batch.GetImport, pb.GetImportRequest(import_id=import_id))).job

    async def cancel_import(self, import_id: str) -> pb.ImportJob:
        """End an import job; what is stored stays."""
        return (await self._calls.unary(self._batch.CancelImport, pb.CancelImportRequest(import_id=import_id))).job

    def import_call(self) -> ImportCall:
        """One bare stream of an import; :class:`soma_client.import_run.ImportRun` makes whole imports of them."""
        return self._batch.ImportRecords(metadata=self._calls.metadata())

    def failure(self, failed: grpc.aio.AioRpcError) -> SomaError:
        """The error of a bare stream that failed."""
        return self._calls.error(failed)

    async def import_errors(self, import_id: str) -> AsyncIterator[pb.RefusedRecord]:
        """Iterate over the refused records of an import job."""
        request = pb.ListImportErrorsRequest(import_id=import_id, page_size=LIMITS.page_size)
        while True:
            page = await self._calls.unary(self._batch.ListImportErrors, request)
            for refused in page.refused:
                yield refused
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def export_records(
        self,
        filter: Filter = EVERYTHING,
        *,
        include_embeddings: bool = False,
        include_links: bool = False,
        cursor: str = "",
    ) -> AsyncIterator[pb.ExportRecordsResponse]:
        """Iterate over a snapshot; each frame's cursor resumes after it."""
        request = pb.ExportRecordsRequest(
            filter=filter_to_pb(filter_in(filter, self.namespace)),
            include_embeddings=include_embeddings,
            include_links=include_links,
            cursor=cursor,
        )
        async for frame in self._calls.stream(self._batch.ExportRecords, request):
            yield frame

    async def watch(
        self,
        after_revision: int | None = None,
        *,
        namespaces: Iterable[str] = (),
        include_links: bool = False,
        ids_only: bool = False,
    ) -> AsyncIterator[watch_service_pb2.WatchResponse]:
        """Iterate over changes and checkpoints; to go on after a break, pass the last revision received."""
        request = watch_service_pb2.WatchRequest(
            after_revision=after_revision,
            namespace_ids=namespaces,
            include_links=include_links,
            ids_only=ids_only,
        )
        async for frame in self._calls.stream(self._watch.Watch, request):
            yield frame

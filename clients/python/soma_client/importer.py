"""Imports that finish: a source's records over as many streams as it takes, each stored exactly once.

    source = Files([Path("notes.jsonl")], JsonLines())
    async with SomaClient.connect(key=key) as soma:
        report = await Importer(soma, source, state=Path("notes.import")).run()

A connection that breaks, a server that restarts and (with a state file) a process that ends are taken up where the
server's last commit is.  What is in memory is what the server's credit allows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import grpc
import orjson

from rpckit.metadata import new_request_id
from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.batch import BatchCalls
from soma_client.calling import may_resume
from soma_client.import_feed import Feed, read_item
from soma_client.import_state import ImportState, read_state, write_state
from soma_client.sources import Item, Mark, Source, original
from soma_contract.convert.item_errors import item_error_from_pb
from soma_contract.errors import (
    SomaError,
    TooManyRefusedError,
    UnavailableError,
)
from soma_contract.limits import LIMITS

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
OPEN_S = 10.0
"""A stream that is not open by then is given up, and opened anew."""
PATIENCE_S = 120.0
KEEP_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """How an import is to go; ``on_conflict`` is skip, overwrite or fail, ``max_refused`` None is no bound."""

    on_conflict: str = "skip"
    max_refused: int | None = None
    dry_run: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is; ``reached`` of ``size`` is in the source's own unit."""

    committed: int = 0
    stored: int = 0
    refused: int = 0
    index_lag: int = 0
    reached: int = 0
    size: int = 0
    reconnects: int = 0
    resumed_at: int = 0
    """Records that were committed before this process began."""


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """A record that was refused: its place in the import and in the source, why, and what stood there."""

    offset: int
    place: str
    error: SomaError
    value: object


def refused_line(refused: RefusedItem) -> bytes:
    """A refused record as a line of JSON: where it stood, why it was refused, and what it was."""
    error = refused.error
    told: dict[str, object] = {
        "offset": refused.offset,
        "place": refused.place,
        "reason": error.reason,
        "message": error.message,
        "violations": [{"field": name, "description": said} for name, said in error.violations],
        "record": original(refused.value),
    }
    return orjson.dumps(told, default=str, option=orjson.OPT_APPEND_NEWLINE)


class Importer:
    """One import of one source.

    ``state`` names a file in which the import is found again by the next process; it is gone when the import is done.
    ``on_progress`` is called after every acknowledgement.  Without progress for ``patience_s`` the import gives up
    with the error at hand; nothing is lost then, running it again goes on.  Chunks hold at most ``chunk_records``.
    """

    def __init__(
        self,
        soma: BatchCalls,
        source: Source,
        *,
        settings: ImportSettings = ImportSettings(),
        state: Path | None = None,
        on_progress: Callable[[ImportProgress], None] | None = None,
        patience_s: float = PATIENCE_S,
        chunk_records: int = LIMITS.chunk_records,
    ) -> None:
        self.source = source
        self.import_id = ""
        self.progress = ImportProgress(size=source.size)
        self._soma = soma
        self._settings = settings
        self._path = state
        self._state: ImportState | None = None
        self._kept_at = 0.0
        self._on_progress = on_progress
        self._patience_s = patience_s
        self._chunk_records = chunk_records
        self._moved_at = 0.0
        self._drained_s: float | None = None

    async def run(self) -> pb.ImportJob:
        """Import everything and return the finished job.

        Raises TooManyRefusedError when the job failed for that, ImportLeaseLostError when another process imports for
        the same job, UnavailableError and its like when the server stayed away for longer than ``patience_s``.
        """
        state = await self._begun()
        feed = Feed(self.source, self._soma.namespace, state.mark, self._chunk_records)
        self._moved_at = time.monotonic()
        failed = 0
        try:
            while True:
                before = self._moved_at
                try:
                    job = await self._stream(feed)
                except SomaError as error:
                    failed = 1 if self._moved_at > before else failed + 1
                    if not may_resume(error) or time.monotonic() - self._moved_at > self._patience_s:
                        raise await self._told(error) from error
                    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failed - 1))
                    await asyncio.sleep(max(wait_s, error.retry_after_s or 0.0))
                else:
                    if job is not None:
                        self._forget_state()
                        return job
                    await asyncio.sleep(self._drained_s or FIRST_WAIT_S)
                self.progress = replace(self.progress, reconnects=self.progress.reconnects + 1)
        finally:
            self._keep(feed.committed, force=True)

    async def refused(self) -> AsyncIterator[RefusedItem]:
        """Every refused record of the job, in order, with what the source holds there; for after ``run``."""
        items = self.source.items()
        offset = -1
        item: Item | None = None
        async for refused in self._soma.import_errors(self.import_id):
            while offset < refused.offset and (item := next(items, None)) is not None:
                offset += 1
            if item is None:
                yield RefusedItem(refused.offset, "", item_error_from_pb(refused.error), None)
                continue
            error = item_error_from_pb(refused.error)
            try:
                read_item(self.source, item)
            except SomaError as unreadable:
                error = unreadable
            yield RefusedItem(refused.offset, item.place, error, item.value)

    # --- the job

    async def _begun(self) -> ImportState:
        """The state of the import: the one found, or that of a new job, which is written before the job is made."""
        options = asdict(self._settings)
        fingerprint = await asyncio.to_thread(self.source.fingerprint)
        state = read_state(self._path) if self._path is not None else None
        if state is None:
            state = ImportState(new_request_id(), fingerprint, options)
        else:
            state.check(fingerprint, options)
        self._state = state
        self._keep(state.mark, force=True)
        if not state.import_id:
            job = await self._soma.create_import(
                on_conflict=self._settings.on_conflict,
                max_refused=self._settings.max_refused,
                dry_run=self._settings.dry_run,
                label=self._settings.label,
                request_id=state.request_id,
            )
            state = replace(state, import_id=job.import_id)
        self._state, self.import_id = state, state.import_id
        self._keep(state.mark, force=True)
        return state

    def _keep(self, mark: Mark, *, force: bool = False) -> None:
        if self._path is None or self._state is None:
            return
        now = time.monotonic()
        if force or now - self._kept_at >= KEEP_EVERY_S:
            self._state, self._kept_at = self._state.at(mark), now
            write_state(self._path, self._state)

    def _forget_state(self) -> None:
        self._state = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _told(self, error: SomaError) -> SomaError:
        """The error to raise: a job that failed says so itself, also to a stream that came too late to be told."""
        if error.reason == "IMPORT_NOT_ACTIVE":
            job = await self._soma.get_import(self.import_id)
            if job.state == pb.IMPORT_STATE_FAILED:
                error = TooManyRefusedError(
                    import_id=job.import_id, refused=str(job.refused), max_refused=str(job.max_refused)
                )
        if error.reason in ("TOO_MANY_REFUSED", "IMPORT_NOT_ACTIVE", "IMPORT_NOT_FOUND"):
            self._forget_state()
        return error

    # --- one stream

    async def _stream(self, feed: Feed) -> pb.ImportJob | None:
        """Feed one stream to its end; the finished job, or None when the server drains."""
        call = self._soma.import_call()
        self._drained_s = None
        try:
            async with asyncio.timeout(min(OPEN_S, max(1.0, self._patience_s))):
                await call.write(pb.ImportRecordsRequest(open=pb.OpenImport(import_id=self.import_id)))
                first = await self._frame(call)
            if not first.HasField("opened"):
                raise UnavailableError("the server did not open the stream")
            await feed.rewind(first.opened.committed_offset)
            self._note_opened(first.opened.committed_offset)
            credit = asyncio.Semaphore(first.opened.credit)
            sending = asyncio.create_task(self._send(call, feed, credit))
            try:
                return await self._receive(call, feed, credit, sending)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except grpc.aio.AioRpcError as error:
            raise self._soma.failure(error) from error
        except asyncio.InvalidStateError:
            # A write on a stream that has ended: how it ended says its status.
            raise await self._ending(call) from None
        except TimeoutError:
            raise UnavailableError("the server did not open the stream in time") from None
        finally:
            call.cancel()

    async def _send(self, call: ImportCall, feed: Feed, credit: asyncio.Semaphore) -> None:
        """Send chunks as credit comes; what goes wrong on the connection is told to whoever reads from it."""
        while True:
            await credit.acquire()
            chunk = await feed.next()
            try:
                if chunk is None:
                    await call.write(pb.ImportRecordsRequest(finish=pb.FinishImport(total=feed.total)))
                    return
                await call.write(chunk.frame)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return

    async def _receive(
        self, call: ImportCall, feed: Feed, credit: asyncio.Semaphore, sending: asyncio.Task[None]
    ) -> pb.ImportJob | None:
        while True:
            reading = asyncio.ensure_future(self._frame(call))
            try:
                # A source that cannot be read ends the import, however long the server is silent.
                watched = {reading} if sending.done() else {reading, sending}
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and not sending.cancelled() and (broken := sending.exception()) is not None:
                    raise broken
                frame = await reading
            finally:
                reading.cancel()
            match frame.WhichOneof("frame"):
                case "ack":
                    feed.acknowledge(frame.ack.committed_offset)
                    self._note_ack(frame.ack, feed)
                    for _ in range(frame.ack.credit):
                        credit.release()
                case "finished":
                    self._note_finished(frame.finished.job)
                    return frame.finished.job
                case "drain":
                    self._drained_s = frame.drain.reconnect_after.ToNanoseconds() / 1e9
                    return None
                case _:
                    pass

    async def _frame(self, call: ImportCall) -> pb.ImportRecordsResponse:
        frame = await call.read()
        if isinstance(frame, pb.ImportRecordsResponse):
            return frame
        raise await self._ending(call)

    async def _ending(self, call: ImportCall) -> SomaError:
        code = await call.code()
        if code is grpc.StatusCode.OK:
            return UnavailableError("the server ended the stream")
        failed = grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
        return self._soma.failure(failed)

    # --- telling

    def _note_opened(self, committed_offset: int) -> None:
        if not self.progress.committed and committed_offset:
            self.progress = replace(self.progress, committed=committed_offset, resumed_at=committed_offset)

    def _note_ack(self, ack: pb.ImportAck, feed: Feed) -> None:
        if ack.committed_offset > self.progress.committed or ack.credit:
            self._moved_at = time.monotonic()
        self.progress = replace(
            self.progress,
            committed=ack.committed_offset,
            stored=ack.stored,
            refused=ack.refused_total,
            index_lag=ack.index_lag,
            reached=self.source.reached(feed.committed.at),
        )
        self._keep(feed.committed)
        self._tell()

    def _note_finished(self, job: pb.ImportJob) -> None:
        self.progress = replace(
            self.progress,
            committed=job.committed_offset,
            stored=job.stored,
            refused=job.refused,
            reached=self.source.size,
        )
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress)


ImportCall = grpc.aio.StreamStreamCall[pb.ImportRecordsRequest, pb.ImportRecordsResponse]

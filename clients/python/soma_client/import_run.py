"""One import over as many streams as it takes, each of which goes on where the server's last commit is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import grpc

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.calling import may_resume
from soma_contract.errors import SomaError, TooManyRefusedError, UnavailableError

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
OPEN_S = 10.0
"""A stream that is not open by then is given up, and opened anew."""
PATIENCE_S = 120.0

ImportCall = grpc.aio.StreamStreamCall[pb.ImportRecordsRequest, pb.ImportRecordsResponse]


class Feed(Protocol):
    """What an import sends; it keeps what is not acknowledged."""

    @property
    def total(self) -> int:
        """How many records there are; known once ``next`` has returned None."""
        ...

    async def rewind(self, committed_offset: int) -> None:
        """Begin a stream: send again what is not committed, and go on behind it."""
        ...

    def acknowledge(self, committed_offset: int) -> None:
        """Let go of what is durable."""
        ...

    async def next(self) -> pb.ImportRecordsRequest | None:
        """The next chunk to send, or None when all is sent."""
        ...


class Imports(Protocol):
    """The calls that an import makes."""

    def import_call(self) -> ImportCall:
        """One bare stream."""
        ...

    def failure(self, failed: grpc.aio.AioRpcError) -> SomaError:
        """The error of a bare stream that failed."""
        ...

    async def get_import(self, import_id: str) -> pb.ImportJob:
        """Read a job."""
        ...


class ImportRun:
    """Sends what a feed has into one job; ``run`` is called once, ``connections`` counts its streams.

    ``on_opened`` is told where each stream begins, ``on_ack`` every acknowledgement.
    """

    def __init__(
        self,
        imports: Imports,
        import_id: str,
        feed: Feed,
        *,
        patience_s: float = PATIENCE_S,
        on_opened: Callable[[int], None] | None = None,
        on_ack: Callable[[pb.ImportAck], None] | None = None,
    ) -> None:
        self.connections = 0
        self._imports = imports
        self._import_id = import_id
        self._feed = feed
        self._patience_s = patience_s
        self._on_opened = on_opened
        self._on_ack = on_ack
        self._committed = 0
        self._moved_at = 0.0
        self._drained_s: float | None = None

    async def run(self) -> pb.ImportJob:
        """Send everything, finish the job and return it.

        Raises TooManyRefusedError when the job failed for that, ImportLeaseLostError when another process imports for
        the same job, UnavailableError and its like when there was no progress for ``patience_s``.
        """
        self._moved_at = time.monotonic()
        failed = 0
        while True:
            before = self._moved_at
            self.connections += 1
            try:
                job = await self._stream()
            except SomaError as error:
                failed = 1 if self._moved_at > before else failed + 1
                if not may_resume(error) or time.monotonic() - self._moved_at > self._patience_s:
                    raise await self._told(error) from error
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failed - 1))
                await asyncio.sleep(max(wait_s, error.retry_after_s or 0.0))
            else:
                if job is not None:
                    return job
                await asyncio.sleep(self._drained_s or FIRST_WAIT_S)

    async def _told(self, error: SomaError) -> SomaError:
        """The error to raise: a job that failed says so itself, also to a stream that came too late to be told."""
        if error.reason == "IMPORT_NOT_ACTIVE":
            job = await self._imports.get_import(self._import_id)
            if job.state == pb.IMPORT_STATE_FAILED:
                return TooManyRefusedError(
                    import_id=job.import_id, refused=str(job.refused), max_refused=str(job.max_refused)
                )
        return error

    async def _stream(self) -> pb.ImportJob | None:
        """Feed one stream to its end; the finished job, or None when the server drains."""
        call = self._imports.import_call()
        self._drained_s = None
        try:
            async with asyncio.timeout(min(OPEN_S, max(1.0, self._patience_s))):
                await call.write(pb.ImportRecordsRequest(open=pb.OpenImport(import_id=self._import_id)))
                first = await self._frame(call)
            if not first.HasField("opened"):
                raise UnavailableError("the server did not open the stream")
            await self._feed.rewind(first.opened.committed_offset)
            if self._on_opened is not None:
                self._on_opened(first.opened.committed_offset)
            credit = asyncio.Semaphore(first.opened.credit)
            sending = asyncio.create_task(self._send(call, credit))
            try:
                return await self._receive(call, credit, sending)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except grpc.aio.AioRpcError as error:
            raise self._imports.failure(error) from error
        except asyncio.InvalidStateError:
            # A write on a stream that has ended: how it ended says its status.
            raise await self._ending(call) from None
        except TimeoutError:
            raise UnavailableError("the server did not open the stream in time") from None
        finally:
            call.cancel()

    async def _send(self, call: ImportCall, credit: asyncio.Semaphore) -> None:
        """Send chunks as credit comes; what goes wrong on the connection is told to whoever reads from it."""
        while True:
            await credit.acquire()
            chunk = await self._feed.next()
            try:
                if chunk is None:
                    await call.write(pb.ImportRecordsRequest(finish=pb.FinishImport(total=self._feed.total)))
                    return
                await call.write(chunk)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return

    async def _receive(
        self, call: ImportCall, credit: asyncio.Semaphore, sending: asyncio.Task[None]
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
                    self._feed.acknowledge(frame.ack.committed_offset)
                    self._note(frame.ack)
                    for _ in range(frame.ack.credit):
                        credit.release()
                case "finished":
                    return frame.finished.job
                case "drain":
                    self._drained_s = frame.drain.reconnect_after.ToNanoseconds() / 1e9
                    return None
                case _:
                    pass

    def _note(self, ack: pb.ImportAck) -> None:
        if ack.committed_offset > self._committed or ack.credit:
            self._moved_at = time.monotonic()
        self._committed = ack.committed_offset
        if self._on_ack is not None:
            self._on_ack(ack)

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
        return self._imports.failure(failed)

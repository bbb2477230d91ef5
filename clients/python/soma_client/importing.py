"""ImportRecords from the caller's side: one import that outlives its connections.

What was sent and not acknowledged is kept, so that any iterable can be imported, also one that is read only once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable

import grpc

from soma.batch.v1 import batch_service_pb2 as pb
from soma.batch.v1 import batch_service_pb2_grpc as rpc
from soma_client.calling import Calls, is_passing
from soma_client.iterating import each
from soma_contract.errors import Code, SomaError, UnavailableError

CHUNK_RECORDS = 500
CHUNK_BYTES = 1024 * 1024
ATTEMPTS = 8
"""Connections in a row that may break without anything having been acknowledged."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
_BROKEN = (Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED)
"""How a broken connection looks; what a server refuses comes with a reason."""

_Call = grpc.aio.StreamStreamCall[pb.ImportRecordsRequest, pb.ImportRecordsResponse]
Records = Iterable[pb.Record] | AsyncIterable[pb.Record]
OnAck = Callable[[pb.ImportAck], None]


class _Drained(Exception):  # noqa: N818 - no error: the server asks to come back
    def __init__(self, after_s: float) -> None:
        super().__init__()
        self.after_s = after_s


class ImportFeed:
    """Sends the records of one job; ``run`` is called once."""

    def __init__(
        self,
        calls: Calls,
        import_id: str,
        records: Records,
        *,
        chunk_records: int = CHUNK_RECORDS,
        on_ack: OnAck | None = None,
    ) -> None:
        self.connections = 0
        self._calls = calls
        self._stub = rpc.BatchServiceStub(calls.channel)
        self._import_id = import_id
        self._records = each(records)
        self._chunk_records = chunk_records
        self._on_ack = on_ack
        self._unacknowledged: deque[pb.ImportChunk] = deque()
        self._read = 0
        self._acknowledged = 0
        self._held_over: pb.Record | None = None

    async def run(self) -> pb.ImportJob:
        """Send everything and finish; raises the SomaError that ended the job, or of a server that stays away."""
        failed = 0
        while True:
            before = self._acknowledged
            self.connections += 1
            call = self._stub.ImportRecords(metadata=self._calls.metadata())
            try:
                return await self._connection(call)
            except _Drained as drained:
                failed, wait_s = 0, drained.after_s
            except (SomaError, grpc.aio.AioRpcError) as error:
                known = error if isinstance(error, SomaError) else self._calls.error(error)
                failed = 1 if self._acknowledged > before else failed + 1
                if not _is_broken(known) or failed >= ATTEMPTS:
                    raise known from error
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failed)
            finally:
                call.cancel()
            await asyncio.sleep(wait_s)

    async def _connection(self, call: _Call) -> pb.ImportJob:
        await _write(call, pb.ImportRecordsRequest(open=pb.OpenImport(import_id=self._import_id)))
        opened = (await _read(call)).opened
        await self._go_on_from(opened.committed_offset)
        again, credit = deque(self._unacknowledged), opened.credit
        while True:
            while credit > 0 and (chunk := again.popleft() if again else await self._next_chunk()):
                await _write(call, pb.ImportRecordsRequest(chunk=chunk))
                credit -= 1
            if not self._unacknowledged:
                break
            ack = (await _read(call)).ack
            self._acknowledge(ack.committed_offset)
            credit += ack.credit
            if self._on_ack is not None:
                self._on_ack(ack)
        await _write(call, pb.ImportRecordsRequest(finish=pb.FinishImport(total=self._read)))
        while (frame := await _read(call)).WhichOneof("frame") != "finished":
            pass
        return frame.finished.job

    async def _go_on_from(self, offset: int) -> None:
        """Pass over what the job has dealt with, in another process perhaps."""
        self._acknowledge(offset)
        while self._read < offset and await self._next_record() is not None:
            pass

    def _acknowledge(self, offset: int) -> None:
        self._acknowledged = max(self._acknowledged, offset)
        while self._unacknowledged and _end(self._unacknowledged[0]) <= offset:
            self._unacknowledged.popleft()

    async def _next_chunk(self) -> pb.ImportChunk | None:
        """The next records, kept until they are acknowledged; None at the end."""
        chunk = pb.ImportChunk(offset=self._read)
        size = 0
        while len(chunk.records) < self._chunk_records and (record := await self._next_record()) is not None:
            size += record.ByteSize()
            if chunk.records and size > CHUNK_BYTES:
                self._held_over = record
                self._read -= 1
                break
            chunk.records.append(record)
        if not chunk.records:
            return None
        # Noted before it is sent: a connection that breaks meanwhile loses nothing.
        self._unacknowledged.append(chunk)
        return chunk

    async def _next_record(self) -> pb.Record | None:
        record, self._held_over = self._held_over, None
        if record is None:
            record = await anext(self._records, None)
        if record is not None:
            self._read += 1
        return record


def _end(chunk: pb.ImportChunk) -> int:
    return chunk.offset + len(chunk.records)


def _is_broken(error: SomaError) -> bool:
    return is_passing(error) or (error.code in _BROKEN and not error.reason)


async def _write(call: _Call, frame: pb.ImportRecordsRequest) -> None:
    try:
        await call.write(frame)
    except asyncio.InvalidStateError:
        # The server has ended the stream; reading tells why.
        await _read(call)


async def _read(call: _Call) -> pb.ImportRecordsResponse:
    """The next frame; raises where there is none."""
    frame = await call.read()
    if not isinstance(frame, pb.ImportRecordsResponse):
        raise UnavailableError("the import's stream ended early")
    if frame.WhichOneof("frame") == "drain":
        raise _Drained(frame.drain.reconnect_after.ToNanoseconds() / 1e9)
    return frame

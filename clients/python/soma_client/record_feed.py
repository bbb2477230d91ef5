"""What an import of any iterable sends: records that may be read only once, kept until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.iterating import each
from soma_contract.limits import LIMITS

CHUNK_RECORDS = 500
CHUNK_BYTES = 1024 * 1024

Records = Iterable[pb.Record] | AsyncIterable[pb.Record]


class RecordFeed:
    """Reads an iterable ahead of what is committed; at most what the server's credit allows is kept."""

    def __init__(self, records: Records, chunk_records: int = CHUNK_RECORDS) -> None:
        self._records = each(records)
        self._chunk_records = min(chunk_records, LIMITS.chunk_records)
        self._unacknowledged: deque[pb.ImportRecordsRequest] = deque()
        self._sent = 0
        self._read = 0
        self._held_over: pb.Record | None = None
        self._reading: asyncio.Future[pb.ImportRecordsRequest | None] | None = None

    @property
    def total(self) -> int:
        """How many records there are; known once all are read."""
        return self._read

    async def rewind(self, committed_offset: int) -> None:
        """Begin a stream: send again what is not committed, pass over what another process has sent."""
        if self._reading is not None:
            await self._read_on()
        self.acknowledge(committed_offset)
        self._sent = 0
        while self._read < committed_offset and await self._next_record() is not None:
            pass

    def acknowledge(self, committed_offset: int) -> None:
        """Let go of what is durable."""
        while self._unacknowledged and _end(self._unacknowledged[0].chunk) <= committed_offset:
            self._unacknowledged.popleft()
            self._sent = max(0, self._sent - 1)

    async def next(self) -> pb.ImportRecordsRequest | None:
        """The next chunk to send, or None when all is sent."""
        if self._sent == len(self._unacknowledged) and not await self._read_on():
            return None
        self._sent += 1
        return self._unacknowledged[self._sent - 1]

    async def close(self) -> None:
        """Read no further."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_on(self) -> bool:
        """Read a chunk.  Whoever waits may be cancelled, and the records not: they would be lost to the next stream."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._chunk())
        frame = await asyncio.shield(self._reading)
        self._reading = None
        if frame is not None:
            self._unacknowledged.append(frame)
        return frame is not None

    async def _chunk(self) -> pb.ImportRecordsRequest | None:
        frame = pb.ImportRecordsRequest(chunk=pb.ImportChunk(offset=self._read))
        records, size = frame.chunk.records, 0
        while len(records) < self._chunk_records and (record := await self._next_record()) is not None:
            size += record.ByteSize()
            if records and size > CHUNK_BYTES:
                self._held_over = record
                self._read -= 1
                break
            records.append(record)
        return frame if records else None

    async def _next_record(self) -> pb.Record | None:
        record, self._held_over = self._held_over, None
        if record is None:
            record = await anext(self._records, None)
        if record is not None:
            self._read += 1
        return record


def _end(chunk: pb.ImportChunk) -> int:
    return chunk.offset + len(chunk.records)

"""What an import sends: the records of a source in chunks, kept until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.sources import Item, Mark, Source
from soma_contract.errors import FieldViolationError, OffsetGapError, SomaError
from soma_contract.limits import LIMITS
from soma_contract.memory import DEFAULT_NAMESPACE

CHUNK_BYTES = 2 * 1024 * 1024
"""A chunk is sent when it holds so much; the contract allows a half more, and one record always fits."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records as they are sent, and the mark behind them."""

    frame: pb.ImportRecordsRequest
    end: Mark


def read_item(source: Source, item: Item, namespace: str = DEFAULT_NAMESPACE) -> pb.Record:
    """Read an item as it is sent; raises FieldViolationError for one that cannot be."""
    record = source.record(item.value)
    if record.ByteSize() > LIMITS.chunk_bytes - 1024:
        raise FieldViolationError.at("record", f"has more than {LIMITS.chunk_bytes} bytes")
    if namespace != DEFAULT_NAMESPACE and record.HasField("memory"):
        memory = record.memory
        if memory.namespace in ("", DEFAULT_NAMESPACE):
            memory.namespace = namespace
    return record


class SourceFeed:
    """Reads a source ahead of what is committed; at most what the server's credit allows is kept."""

    def __init__(self, source: Source, namespace: str, mark: Mark, chunk_records: int = LIMITS.chunk_records) -> None:
        self._source = source
        self._chunk_records = min(chunk_records, LIMITS.chunk_records)
        self._namespace = namespace
        self._unacknowledged: deque[Chunk] = deque()
        self._start = mark
        self._waiting: Item | None = None
        self._next = mark
        self._sent = 0
        self._items = source.items(mark.at)
        self._reading: asyncio.Future[Chunk | None] | None = None

    @property
    def total(self) -> int:
        """How many records there are; known once all are read."""
        return self._next.offset

    @property
    def committed(self) -> Mark:
        """The mark behind the last chunk that is acknowledged as a whole."""
        return self._start

    async def rewind(self, committed_offset: int) -> None:
        """Begin a stream: send again what is not committed, and go on behind it."""
        if self._reading is not None:
            await self._read_on()
        self.acknowledge(committed_offset)
        if committed_offset < self._start.offset:
            # Never of a server that keeps its word; one that was restored from a backup has forgotten some.
            self._start, self._next, self._sent = Mark(), Mark(), 0
            self._unacknowledged.clear()
            self._items, self._waiting = self._source.items(), None
        self._sent = 0
        if self._next.offset < committed_offset:
            await asyncio.to_thread(self._skip, committed_offset)

    def _skip(self, committed_offset: int) -> None:
        while self._next.offset < committed_offset:
            item = self._waiting or next(self._items, None)
            self._waiting = None
            if item is None:
                raise OffsetGapError(
                    f"{self._source.name} has only {self._next.offset} records, but the job {committed_offset}",
                    expected_offset=str(committed_offset),
                )
            self._next = Mark(self._next.offset + 1, item.after)
            self._start = self._next

    def acknowledge(self, committed_offset: int) -> None:
        """Let go of what is durable."""
        while self._unacknowledged and self._unacknowledged[0].end.offset <= committed_offset:
            self._start = self._unacknowledged.popleft().end
            self._sent = max(0, self._sent - 1)

    async def next(self) -> pb.ImportRecordsRequest | None:
        """The next chunk to send, or None when all is sent."""
        if self._sent == len(self._unacknowledged) and not await self._read_on():
            return None
        self._sent += 1
        return self._unacknowledged[self._sent - 1].frame

    async def _read_on(self) -> bool:
        """Read a chunk in a thread.  Whoever waits may be cancelled: the chunk then waits for the next who asks."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read))
        chunk = await asyncio.shield(self._reading)
        self._reading = None
        if chunk is None:
            return False
        self._unacknowledged.append(chunk)
        return True

    def _read(self) -> Chunk | None:
        frame = pb.ImportRecordsRequest(chunk=pb.ImportChunk(offset=self._next.offset))
        records = frame.chunk.records
        size = 0
        for item, record in self._following():
            grown = size + record.ByteSize() + 8
            if records and grown > CHUNK_BYTES:
                self._waiting = item
                break
            size = grown
            records.append(record)
            self._next = Mark(self._next.offset + 1, item.after)
            if len(records) >= self._chunk_records:
                break
        return Chunk(frame, self._next) if records else None

    def _following(self) -> Iterator[tuple[Item, pb.Record]]:
        while True:
            item = self._waiting or next(self._items, None)
            self._waiting = None
            if item is None:
                return
            try:
                record = read_item(self._source, item, self._namespace)
            except SomaError:
                # An empty record keeps the place: the server refuses it there, and the report says what was wrong.
                record = pb.Record()
            yield item, record

"""A hand-driven import stream, for tests that decide themselves what is sent when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from soma.batch.v1 import batch_service_pb2 as pb
from soma.memory.v1 import memory_pb2
from soma_contract.ids import new_memory_id
from tests.integration.batch.callers import Caller

PATIENCE_S = 30.0


def memory(text: str, **fields: Any) -> pb.Record:
    """A record of a memory, with an id of its own unless given."""
    fields.setdefault("memory_id", new_memory_id())
    return pb.Record(memory=memory_pb2.Memory(text=text, **fields))


def memories(count: int, prefix: str = "note") -> list[pb.Record]:
    """Records of memories with ids."""
    return [memory(f"{prefix} number {number}") for number in range(count)]


class Stream:
    """One ImportRecords call: say what is sent, read what comes."""

    def __init__(self, caller: Caller) -> None:
        self._frames: asyncio.Queue[pb.ImportRecordsRequest | None] = asyncio.Queue()
        self.call = caller.batch.ImportRecords(self._sent(), metadata=caller.metadata)

    async def _sent(self) -> AsyncIterator[pb.ImportRecordsRequest]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    def open(self, import_id: str) -> None:
        """Send the opening frame."""
        self._frames.put_nowait(pb.ImportRecordsRequest(open=pb.OpenImport(import_id=import_id)))

    def chunk(self, offset: int, records: Iterable[pb.Record]) -> None:
        """Send a chunk."""
        self._frames.put_nowait(pb.ImportRecordsRequest(chunk=pb.ImportChunk(offset=offset, records=records)))

    def finish(self, total: int) -> None:
        """Send the last frame."""
        self._frames.put_nowait(pb.ImportRecordsRequest(finish=pb.FinishImport(total=total)))

    def half_close(self) -> None:
        """Say that nothing more is sent."""
        self._frames.put_nowait(None)

    async def next(self) -> pb.ImportRecordsResponse:
        """The next frame of the server; fails the test if none comes."""
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.call.read()
        if frame is grpc.aio.EOF:
            raise AssertionError(f"the stream ended with {await self.call.code()}: {await self.call.details()}")
        assert isinstance(frame, pb.ImportRecordsResponse)
        return frame

    async def acked(self, offset: int) -> list[pb.ImportAck]:
        """The acks up to the one that covers an offset."""
        acks: list[pb.ImportAck] = []
        while not acks or acks[-1].committed_offset < offset:
            frame = await self.next()
            assert frame.HasField("ack"), frame
            acks.append(frame.ack)
        return acks

    async def finished(self) -> pb.ImportJob:
        """The job of the finished frame, acks before it aside."""
        while True:
            frame = await self.next()
            if frame.HasField("finished"):
                return frame.finished.job

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ends, what comes before aside: its status and the error's message."""
        async with asyncio.timeout(PATIENCE_S):
            with suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            self.half_close()
            return await self.call.code(), await self.call.details() or ""


@asynccontextmanager
async def opened(caller: Caller, import_id: str) -> AsyncIterator[tuple[Stream, pb.ImportOpened]]:
    """A stream that has opened a job; it is cut at the end."""
    stream = Stream(caller)
    try:
        stream.open(import_id)
        frame = await stream.next()
        assert frame.HasField("opened"), frame
        yield stream, frame.opened
    finally:
        stream.half_close()
        stream.call.cancel()


async def created(caller: Caller, **options: Any) -> str:
    """A new job's id."""
    answer = await caller.batch.CreateImport(pb.CreateImportRequest(**options), metadata=caller.metadata, timeout=20)
    return answer.job.import_id


async def imported(caller: Caller, records: Sequence[pb.Record], size: int = 100, **options: Any) -> pb.ImportJob:
    """Import records in chunks of a size, and finish."""
    async with opened(caller, await created(caller, **options)) as (stream, _):
        for start in range(0, len(records), size):
            part = records[start : start + size]
            stream.chunk(start, part)
            await stream.acked(start + len(part))
        stream.finish(len(records))
        return await stream.finished()


async def exported(caller: Caller, **request: Any) -> list[pb.Record]:
    """All records of an export."""
    records: list[pb.Record] = []
    async for frame in caller.batch.ExportRecords(
        pb.ExportRecordsRequest(**request), metadata=caller.metadata, timeout=120
    ):
        records.extend(frame.records)
    return records

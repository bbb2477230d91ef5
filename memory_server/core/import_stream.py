"""One stream of an import: frames in, commits, credit and acks out.

Chunks are taken in and prepared while those before them are committed.  What is in memory at any time is what the
credit allows; credit comes back when records are durable, and slower the longer the index queue is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from memory_server.bulk_ports import Prepared
from memory_server.core.importing import Importing
from memory_server.domain.imports import Committed, Lease
from memory_server.pacing import Pace
from soma_contract.errors import (
    FieldViolationError,
    ImportLeaseLostError,
    ImportNotActiveError,
    ImportNotFoundError,
    OffsetGapError,
    SomaError,
    TooManyRefusedError,
    WindowExceededError,
)
from soma_contract.limits import LIMITS
from soma_contract.records import ImportJob, ImportState, Record, Refused
from soma_contract.tenant import Tenant

REFUSED_IN_ACK = 100
CHECK_EVERY_S = 5.0
"""An idle stream looks so often whether it still holds its job."""
_QUIET_S = 0.05
_QUIET_TRIES = 10


@dataclass(frozen=True, slots=True)
class CreditRules:
    """How many chunks may be under way, and how long they are kept waiting for the index."""

    window: int = 8
    """Chunks of one stream, at most 3 MiB each."""
    shared: int = 64
    """Chunks of all streams of a process."""
    lag_free: int = 20_000
    """Up to so many waiting index jobs nothing is held back."""
    lag_full: int = 100_000
    """From so many on credit comes back ``slowest_s`` late."""
    slowest_s: float = 1.0
    """For each chunk; it never stops, so an import ends also while the index is away."""
    look_every_s: float = 0.5
    """How often the queue is counted."""

    def width(self, streams: int) -> int:
        """The window of each of so many streams."""
        return max(1, min(self.window, self.shared // max(1, streams)))

    def delay_s(self, lag: int) -> float:
        """How long the credit for a chunk is held back."""
        share = (lag - self.lag_free) / (self.lag_full - self.lag_free)
        return self.slowest_s * min(1.0, max(0.0, share))


DEFAULT_RULES = CreditRules()


# --- frames --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """Takes the lease."""

    import_id: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Brings ``count`` records, which are read as they are iterated over."""

    offset: int
    count: int
    records: Iterable[Record | SomaError]


@dataclass(frozen=True, slots=True)
class Finish:
    """Ends the job."""

    total: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The lease is taken."""

    committed_offset: int
    credit: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything before the offset is durable; so many more chunks may be sent."""

    job: ImportJob
    refused: tuple[Refused, ...]
    credit: int
    index_lag: int


@dataclass(frozen=True, slots=True)
class Drain:
    """The server shuts down."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is finished."""

    job: ImportJob


FrameIn = Open | Chunk | Finish
FrameOut = Opened | Ack | Drain | Finished
Send = Callable[[FrameOut], Awaitable[None]]


@dataclass(slots=True)
class _Arrived:
    """What one frame brought, ready to commit; its error ends the stream once all before it is committed."""

    records: list[Prepared] = field(default_factory=list)
    chunks: int = 0
    finish: Finish | None = None
    error: SomaError | None = None
    ended: bool = False


class ImportStream:
    """Serves one stream of one tenant."""

    def __init__(
        self,
        importing: Importing,
        tenant: Tenant,
        draining: asyncio.Event,
        send: Send,
        rules: CreditRules = DEFAULT_RULES,
    ) -> None:
        self._importing = importing
        self._store = importing.store
        self._tenant = tenant
        self._draining = draining
        self._send = send
        self._rules = rules
        self._lost = asyncio.Event()
        self._arrived: asyncio.Queue[_Arrived] = asyncio.Queue()
        self._granted = 0
        self._under_way = 0
        self._lag = 0
        self._looked_at = float("-inf")
        self._received = 0
        self._frames = 0

    def lose(self) -> None:
        """Another stream of this process has taken the job over."""
        self._lost.set()

    async def run(self, frames: AsyncIterator[FrameIn]) -> None:
        """Serve until the job is finished, the client stops sending, or the server drains.  Raises why it ended."""
        first = await anext(frames, None)
        if not isinstance(first, Open):
            raise FieldViolationError.at("frame", "the first frame must open a job")
        found = await self._store.lease(self._tenant, first.import_id)
        if found is None:
            raise ImportNotFoundError(import_id=first.import_id)
        job, lease = found
        if job.state is ImportState.SUCCEEDED:
            await self._serve_ended(job, frames)
            return
        if job.state is not ImportState.ACTIVE:
            raise ImportNotActiveError(import_id=job.import_id, state=job.state.value)
        with self._importing.held(self._tenant, job.import_id, self):
            await self._serve(job, lease, frames)

    async def _serve_ended(self, job: ImportJob, frames: AsyncIterator[FrameIn]) -> None:
        """A client that does not know yet that its job is finished is told so again."""
        await self._send(Opened(job.committed_offset, 1))
        async for frame in frames:
            if isinstance(frame, Finish):
                if frame.total != job.total:
                    raise OffsetGapError(expected_offset=str(job.total))
                await self._send(Finished(job))
                return
            if not isinstance(frame, Chunk) or frame.offset + frame.count > job.total:
                raise ImportNotActiveError(import_id=job.import_id, state=job.state.value)
            await self._send(Ack(job, (), 1, 0))

    async def _serve(self, job: ImportJob, lease: Lease, frames: AsyncIterator[FrameIn]) -> None:
        self._received = job.committed_offset
        self._granted = self._rules.width(self._importing.streams)
        await self._send(Opened(job.committed_offset, self._granted))
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(frames))
            try:
                await self._commit_all(job, lease)
            except SomaError:
                await self._quieten(reader)
                raise
            finally:
                reader.cancel()

    async def _quieten(self, reader: asyncio.Task[None]) -> None:
        """Let what the client has under way arrive before an error ends the stream.

        A client whose write fails because the stream ended may be told of the failed write instead of why it ended.
        Without new credit it soon stops by itself.
        """
        seen = -1
        for _ in range(_QUIET_TRIES):
            if reader.done() or seen == self._frames:
                return
            seen = self._frames
            await asyncio.wait({reader}, timeout=_QUIET_S)

    # --- taking in

    async def _read(self, frames: AsyncIterator[FrameIn]) -> None:
        """Prepare what arrives; never raises, so that what came before an error is committed first."""
        try:
            async for frame in frames:
                self._frames += 1
                if isinstance(frame, Chunk):
                    self._arrived.put_nowait(await self._chunk(frame))
                elif isinstance(frame, Finish):
                    self._arrived.put_nowait(_Arrived(finish=frame))
                else:
                    raise FieldViolationError.at("frame", "a stream opens one job")
        except SomaError as error:
            self._arrived.put_nowait(_Arrived(error=error))
            async for _ in frames:
                self._frames += 1
        else:
            self._arrived.put_nowait(_Arrived(ended=True))

    async def _chunk(self, chunk: Chunk) -> _Arrived:
        self._granted -= 1
        if self._granted < 0:
            raise WindowExceededError(credit="0")
        self._under_way += 1
        if chunk.offset > self._received:
            raise OffsetGapError(expected_offset=str(self._received))
        known = self._received - chunk.offset
        self._received = max(self._received, chunk.offset + chunk.count)
        records: list[Prepared] = []
        pace = Pace()
        for place, record in enumerate(chunk.records):
            if place >= known:
                records.append(self._store.prepare(self._importing.admitted(record)))
                await pace.step()
        return _Arrived(records, chunks=1)

    # --- committing

    async def _commit_all(self, job: ImportJob, lease: Lease) -> None:
        waiting: deque[_Arrived] = deque()
        while True:
            if not waiting:
                arrived = await self._next(lease)
                if arrived is None:
                    await self._send(Drain())
                    return
                waiting.append(arrived)
            while not self._arrived.empty():
                waiting.append(self._arrived.get_nowait())
            if waiting[0].error is not None:
                raise waiting[0].error
            if waiting[0].ended:
                return
            if (finish := waiting[0].finish) is not None:
                finished = await self._store.finish(self._tenant, lease, finish.total)
                await self._send(Finished(finished))
                return
            job = await self._commit(job, lease, waiting)
            if job.state is ImportState.FAILED:
                raise TooManyRefusedError(
                    import_id=job.import_id, refused=str(job.refused), max_refused=str(job.options.max_refused)
                )

    async def _commit(self, job: ImportJob, lease: Lease, waiting: deque[_Arrived]) -> ImportJob:
        """Commit as many waiting chunks as fit one transaction, and say so."""
        records: list[Prepared] = []
        chunks = 0
        while waiting and waiting[0].chunks and len(records) + len(waiting[0].records) <= LIMITS.chunk_records:
            arrived = waiting.popleft()
            records += arrived.records
            chunks += arrived.chunks
        refused: tuple[Refused, ...] = ()
        if records:
            committed = await self._committed(lease, job.committed_offset, records)
            job, refused = committed.job, committed.refused
            self._importing.on_written()
        self._under_way -= chunks
        delay_s = await self._delay_s() * chunks
        if delay_s:
            await self._send(Ack(job, refused[:REFUSED_IN_ACK], 0, self._lag))
            refused = ()
            await self._pause(delay_s)
        await self._send(Ack(job, refused[:REFUSED_IN_ACK], self._credit(), self._lag))
        return job

    async def _committed(self, lease: Lease, offset: int, records: Sequence[Prepared]) -> Committed:
        """Commit, to the end even when the caller goes away meanwhile: a connection is not thrown away for that."""
        work = asyncio.ensure_future(self._store.commit(self._tenant, lease, offset, records))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            raise

    async def _delay_s(self) -> float:
        """How long the credit for a chunk is held back."""
        clock = asyncio.get_running_loop().time
        if clock() - self._looked_at >= self._rules.look_every_s:
            self._lag = await self._store.waiting(self._tenant, self._rules.lag_full)
            self._looked_at = clock()
        return self._rules.delay_s(self._lag)

    def _credit(self) -> int:
        """Grant what the window has room for; a draining server grants nothing, so that what is on its way ends."""
        if self._draining.is_set():
            return 0
        room = self._rules.width(self._importing.streams) - self._granted - self._under_way
        # A window that became narrower closes as its chunks are committed, but never altogether.
        credit = max(room, 0 if self._granted or self._under_way else 1, 0)
        self._granted += credit
        return credit

    # --- waiting

    async def _next(self, lease: Lease) -> _Arrived | None:
        """What arrived next, or None when the server drains; notices when the job is taken over or ended meanwhile."""
        while True:
            async with asyncio.TaskGroup() as group:
                arriving = group.create_task(self._arrived.get())
                told = [group.create_task(event.wait()) for event in (self._draining, self._lost)]
                await asyncio.wait({arriving, *told}, timeout=CHECK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                for task in (arriving, *told):
                    task.cancel()
            if self._lost.is_set():
                raise ImportLeaseLostError(import_id=lease.import_id)
            if arriving.done() and not arriving.cancelled():
                return arriving.result()
            if self._draining.is_set():
                return None
            await self._store.check(self._tenant, lease)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the server drains or the job is lost meanwhile."""
        async with asyncio.TaskGroup() as group:
            told = [group.create_task(event.wait()) for event in (self._draining, self._lost)]
            await asyncio.wait(told, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in told:
                task.cancel()

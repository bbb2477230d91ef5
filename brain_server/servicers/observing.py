"""One Observe stream: frames in, batches through working memory, answers out in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from brain_server.core.observing import Message, Observing
from brain_server.core.promoting import Promoted, Promoting
from brain_server.servicers.working_items import item_to_pb, message_from_pb, outcome_to_pb
from rpckit.paging import fitting
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma_contract.convert.streams import RECONNECT_AFTER_S
from soma_contract.errors import FieldViolationError, SomaError, WindowExceededError
from soma_contract.tenant import Tenant

CREDIT = 512
"""Observations that may be unanswered."""
_BATCH = 64
"""Observations that share one fsync at most, so that the first of many is not answered last."""

Write = Callable[[pb.ObserveResponse], Awaitable[None]]


class ObserveStream:
    """Serves one stream after its session is known."""

    def __init__(
        self, observing: Observing, promoting: Promoting, tenant: Tenant, write: Write, draining: asyncio.Event
    ) -> None:
        self._observing = observing
        self._promoting = promoting
        self._tenant = tenant
        self._write = write
        self._draining = draining
        self._arrived: deque[Message] = deque()
        self._unanswered = 0
        self._ended = False
        self._failure: SomaError | None = None
        self._wake = asyncio.Event()

    async def run(self, session_id: str, persona_id: str, requests: AsyncIterator[pb.ObserveRequest]) -> None:
        """Serve until the client half-closes or the server drains; what was read is answered first."""
        opened = await self._observing.open(self._tenant, session_id, persona_id)
        items = [item_to_pb(item) for item in opened.items]
        frame = pb.SessionOpened(
            session_id=session_id,
            sequence=opened.last_sequence,
            items=items[: fitting([item.ByteSize() for item in items])],
            item_count=len(items),
            resumed=opened.resumed,
            credit=CREDIT,
        )
        await self._write(pb.ObserveResponse(opened=frame))
        with self._promoting.listening(self._tenant, session_id) as promoted:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(requests)), group.create_task(self._watch_drain())]
                try:
                    await self._answer(session_id, opened.last_sequence, promoted)
                except SomaError as error:
                    # Kept out of the group, which would wrap it.
                    self._failure = error
                finally:
                    for task in tasks:
                        task.cancel()
        if self._failure is not None:
            raise self._failure

    async def _answer(self, session_id: str, last: int, promoted: list[Promoted]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._arrived:
                batch = [self._arrived.popleft() for _ in range(min(_BATCH, len(self._arrived)))]
                last = await self._answer_batch(session_id, last, batch, promoted)
            if self._failure is not None or self._ended:
                return
            if self._draining.is_set():
                drain = pb.ObserveDrain(sequence=last)
                drain.reconnect_after.FromSeconds(RECONNECT_AFTER_S)
                await self._write(pb.ObserveResponse(drain=drain))
                return

    async def _answer_batch(self, session_id: str, last: int, batch: list[Message], promoted: list[Promoted]) -> int:
        while batch:
            outcomes = await self._observing.take(self._tenant, session_id, last, batch)
            for outcome in outcomes:
                news, promoted[:] = [*promoted], []
                # Before the write: whoever reads the answer may send the next one before we are back.
                self._unanswered -= 1
                await self._write(outcome_to_pb(outcome, news))
                last = max(last, outcome.message.sequence)
            batch = batch[len(outcomes) :]
        return last

    async def _read(self, requests: AsyncIterator[pb.ObserveRequest]) -> None:
        async for request in requests:
            if not request.HasField("observation"):
                self._failure = FieldViolationError.at("opening", "opens a stream, and only once")
                break
            if self._unanswered >= CREDIT:
                self._failure = WindowExceededError(credit=str(CREDIT))
                break
            self._unanswered += 1
            self._arrived.append(message_from_pb(request.observation))
            self._wake.set()
        self._ended = True
        self._wake.set()

    async def _watch_drain(self) -> None:
        await self._draining.wait()
        self._wake.set()

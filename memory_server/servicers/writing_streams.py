"""RememberMany: one long stream of writes, answered as they are committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from rpckit.call import CallContext, current_call
from rpckit.status import public_error
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.memories import REQUEST_ID_BYTES
from soma_contract.errors import FieldViolationError

IN_FLIGHT = 64
RECONNECT_AFTER_S = 1

Store = Callable[[pb.RememberRequest], Awaitable[pb.RememberResponse]]
Write = Callable[[pb.RememberManyResponse], Awaitable[None]]


class WritingStream:
    """Stores what one stream brings, up to 64 at a time, and answers in the order of completion."""

    def __init__(self, store: Store, write: Write, draining: asyncio.Event) -> None:
        self._store = store
        self._write = write
        self._draining = draining
        self._open: set[str] = set()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._writing = asyncio.Lock()
        self._call: CallContext = current_call()

    async def run(self, requests: AsyncIterator[pb.RememberManyRequest]) -> None:
        """Serve until the client half-closes or the server drains; what was read is answered in any case."""
        drained = False
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(self._draining.wait())
            reader = aiter(requests)
            while not drained:
                ahead = asyncio.ensure_future(anext(reader, None))
                await asyncio.wait({ahead, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not ahead.done():
                    ahead.cancel()
                    drained = True
                elif (request := ahead.result()) is None:
                    break
                else:
                    await self._slots.acquire()
                    group.create_task(self._answer(request))
            stop.cancel()
        if drained:
            drain = pb.RememberManyDrain()
            drain.reconnect_after.FromSeconds(RECONNECT_AFTER_S)
            await self._write(pb.RememberManyResponse(drain=drain))

    async def _answer(self, request: pb.RememberManyRequest) -> None:
        answer = pb.RememberManyResponse(correlation_id=request.correlation_id)
        try:
            self._begin(request.correlation_id)
            try:
                answer.remembered.CopyFrom(await self._store(request.remember))
            finally:
                self._open.discard(request.correlation_id)
        except Exception as error:  # noqa: BLE001 - one item's defect must not end the others' stream
            answer.error.CopyFrom(item_error_to_pb(public_error(error, self._call.request_id)))
        finally:
            self._slots.release()
        async with self._writing:
            await self._write(answer)

    def _begin(self, correlation_id: str) -> None:
        checks = Checks()
        checks.required("correlation_id", correlation_id, REQUEST_ID_BYTES)
        checks.done()
        if correlation_id in self._open:
            raise FieldViolationError.at("correlation_id", "is that of a request still unanswered")
        self._open.add(correlation_id)

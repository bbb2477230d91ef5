"""RememberMany from the caller's side: one stream of writes that outlives its connections.

Every request keeps its request id, so sending it again after a break stores nothing twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable

import grpc

from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_client.answers import Outcome, read_remembered
from soma_client.calling import Calls, is_passing
from soma_client.iterating import each
from soma_contract.convert.item_errors import item_error_from_pb
from soma_contract.convert.memories import remember_to_pb
from soma_contract.errors import SomaError
from soma_contract.memory import Memory, Remember

Writable = str | Memory | Remember
"""A text, a memory, or a whole command with conditions."""

ATTEMPTS = 6
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0


class RememberStream(AsyncIterator[Outcome]):
    """An async iterator of outcomes, in the order they are acknowledged.

    At most ``in_flight`` items are unanswered at any moment. Ends when every item has its outcome; raises what the
    source of items raises, and the SomaError of a stream that could not be resumed.
    """

    def __init__(
        self,
        calls: Calls,
        items: Iterable[Writable] | AsyncIterable[Writable],
        command: Callable[[Writable], Remember],
        in_flight: int,
    ) -> None:
        self._calls = calls
        self._stub = rpc.MemoryServiceStub(calls.channel)
        self._command = command
        self._room = asyncio.Semaphore(in_flight)
        self._changed = asyncio.Condition()
        self._waiting: deque[pb.RememberManyRequest] = deque()
        self._unanswered: dict[str, pb.RememberManyRequest] = {}
        self._all_read = False
        self._broken: BaseException | None = None
        self._connection = 0
        self._reading = asyncio.ensure_future(self._read(items))
        self._outcomes = self._run()

    def __aiter__(self) -> RememberStream:
        return self

    async def __anext__(self) -> Outcome:
        return await anext(self._outcomes)

    async def aclose(self) -> None:
        """Stop sending; what is unanswered may or may not be stored."""
        await self._outcomes.aclose()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, items: Iterable[Writable] | AsyncIterable[Writable]) -> None:
        """Takes items from their source as there is room; apart from the connections, which come and go."""
        try:
            position = 0
            async for item in each(items):
                await self._room.acquire()
                command = remember_to_pb(self._command(item))
                request = pb.RememberManyRequest(correlation_id=str(position), remember=command)
                async with self._changed:
                    self._waiting.append(request)
                    self._changed.notify_all()
                position += 1
        except Exception as error:  # noqa: BLE001 - it is raised where the outcomes are read
            self._broken = error
        async with self._changed:
            self._all_read = True
            self._changed.notify_all()

    async def _requests(self, connection: int) -> AsyncGenerator[pb.RememberManyRequest, None]:
        """What one connection sends: the unanswered again, then what follows, until another connection has begun."""
        for request in list(self._unanswered.values()):
            yield request
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: connection != self._connection or self._waiting or self._all_read)
            if connection != self._connection or not self._waiting:
                return
            # Noted before it is sent: a connection that breaks meanwhile loses nothing.
            following = self._waiting.popleft()
            self._unanswered[following.correlation_id] = following
            yield following

    async def _run(self) -> AsyncGenerator[Outcome, None]:
        failed = 0
        method = self._stub.RememberMany
        try:
            while True:
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failed)
                call = method(self._requests(self._connection), metadata=self._calls.metadata())
                try:
                    async for answer in call:
                        if answer.WhichOneof("outcome") == "drain":
                            wait_s = answer.drain.reconnect_after.ToNanoseconds() / 1e9
                            break
                        if (outcome := self._answered(answer)) is not None:
                            failed = 0
                            yield outcome
                except grpc.aio.AioRpcError as error:
                    failed += 1
                    known = await self._calls.fed_stream_error(error, method)
                    if not is_passing(known) or failed >= ATTEMPTS:
                        raise known from error
                finally:
                    call.cancel()
                    await self._leave_connection()
                if self._all_read and not self._waiting and not self._unanswered:
                    break
                await asyncio.sleep(wait_s)
            if self._broken is not None:
                raise self._broken
        finally:
            self._reading.cancel()

    async def _leave_connection(self) -> None:
        """Ends the feeding of the connection at hand: grpc would let it take items that it can no longer send."""
        async with self._changed:
            self._connection += 1
            self._changed.notify_all()

    def _answered(self, answer: pb.RememberManyResponse) -> Outcome | None:
        if self._unanswered.pop(answer.correlation_id, None) is None:
            return None
        self._room.release()
        position = int(answer.correlation_id)
        if answer.WhichOneof("outcome") == "remembered":
            return Outcome(position, remembered=read_remembered(answer.remembered))
        error: SomaError = item_error_from_pb(answer.error)
        return Outcome(position, error=error)

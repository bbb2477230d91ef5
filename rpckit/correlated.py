"""Long streams whose requests are answered in the order of completion, each under its correlation id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from rpckit.call import current_call
from rpckit.status import public_error
from soma_contract.errors import FieldViolationError, SomaError

CORRELATION_ID_BYTES = 128


class Correlated(Protocol):
    """A request that names itself."""

    @property
    def correlation_id(self) -> str:
        """Comes back with the answer."""


_Request = TypeVar("_Request", bound=Correlated)
_Response = TypeVar("_Response")


class CorrelatedStream(Generic[_Request, _Response]):
    """Serves one stream: up to ``in_flight`` requests at a time, no further one read while that many run.

    ``answer`` handles a request and writes its answers itself; ``refuse`` makes the answer of one that failed, so that
    an item never ends the others' stream.
    """

    def __init__(
        self,
        answer: Callable[[_Request, Callable[[_Response], Awaitable[None]]], Awaitable[None]],
        refuse: Callable[[str, SomaError], _Response],
        write: Callable[[_Response], Awaitable[None]],
        draining: asyncio.Event,
        *,
        in_flight: int,
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._transport = write
        self._draining = draining
        self._slots = asyncio.Semaphore(in_flight)
        self._open: set[str] = set()
        self._writing = asyncio.Lock()
        self._request_id = current_call().request_id

    async def run(self, requests: AsyncIterator[_Request]) -> bool:
        """Serve until the client half-closes (False) or the server drains (True); what was read is answered first."""
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(self._draining.wait())
            try:
                return await self._read(requests, stop, group)
            finally:
                stop.cancel()

    async def _read(
        self, requests: AsyncIterator[_Request], stop: asyncio.Task[bool], group: asyncio.TaskGroup
    ) -> bool:
        while True:
            ahead = asyncio.ensure_future(anext(requests, None))
            try:
                await asyncio.wait({ahead, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not ahead.done():
                    ahead.cancel()
            if not ahead.done() or ahead.cancelled():
                return True
            request = ahead.result()
            if request is None:
                return False
            await self._slots.acquire()
            group.create_task(self._serve(request))

    async def _serve(self, request: _Request) -> None:
        name = request.correlation_id
        admitted = False
        try:
            self._begin(name)
            admitted = True
            await self._answer(request, self._write)
        except Exception as error:  # noqa: BLE001 - one item's defect must not end the others' stream
            await self._write(self._refuse(name, public_error(error, self._request_id)))
        finally:
            if admitted:
                self._open.discard(name)
            self._slots.release()

    def _begin(self, name: str) -> None:
        if not 0 < len(name.encode()) <= CORRELATION_ID_BYTES:
            raise FieldViolationError.at("correlation_id", f"must have 1 to {CORRELATION_ID_BYTES} bytes")
        if name in self._open:
            raise FieldViolationError.at("correlation_id", "is that of a request still unanswered")
        self._open.add(name)

    async def _write(self, response: _Response) -> None:
        # grpc takes one write at a time on a stream.
        async with self._writing:
            await self._transport(response)

"""Calls that the brain adds nothing to: their messages pass as raw bytes, to the memory server and back.

The caller is authenticated and bound to its tenant here; onward goes the brain's own credential with that tenant, what
is left of the deadline, and the call's ids and trace.  Cancellation, half-close, trailers and errors are carried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from brain_server.gateway.wire import MARGIN_S, MemoryWire
from rpckit.call import current_call, current_caller, current_tenant
from rpckit.metadata import NAMESPACE_ALIAS, REQUEST_ID, TENANT
from rpckit.status import error_from_rpc
from rpckit.telemetry.tracing import client_span
from soma_contract.errors import BudgetSpentError, DrainingError, ScopeMissingError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Makes handlers that pass calls on; ``draining`` is set when this server shuts down."""

    wire: MemoryWire
    draining: asyncio.Event

    def unary(self, path: str) -> Handler:
        """A handler of a call with one request and one answer."""

        async def handle(request: bytes, context: Any) -> bytes:
            _refuse_confined()
            answer: bytes = await self.wire.unary(self.wire.channel.unary_unary(path), request, current_tenant())
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)

    def answers(self, path: str) -> Handler:
        """A handler of a call with one request and many answers; a draining server ends it with DRAINING."""

        async def handle(request: bytes, context: Any) -> None:
            def begin(timeout: float | None, metadata: Pairs) -> Any:
                onward: Any = self.wire.channel.unary_stream(path)
                return onward(request, timeout=timeout, metadata=metadata)

            if await self._passed(path, begin, context, None):
                raise DrainingError

        return grpc.unary_stream_rpc_method_handler(handle)

    def duplex(self, path: str, drain: Callable[[], bytes]) -> Handler:
        """A handler of a call with many requests and many answers.

        When this server drains, the onward stream is half-closed, what it still answers is passed on, and ``drain``
        makes the last frame.
        """

        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            def begin(timeout: float | None, metadata: Pairs) -> Any:
                return self.wire.channel.stream_stream(path)(timeout=timeout, metadata=metadata)

            if await self._passed(path, begin, context, requests):
                await context.write(drain())

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _passed(
        self,
        path: str,
        begin: Callable[[float | None, Pairs], Any],
        context: Any,
        requests: AsyncIterator[bytes] | None,
    ) -> bool:
        """Pass a stream on to its end, or until this server drains: then True.

        The breaker judges it by its first answer, or by its end if there is none: a stream may last for days.
        """
        _refuse_confined()
        tenant, seconds = current_tenant(), _remaining_s()
        async with self.wire.breakers.permit(tenant, path, None) as permit:
            with client_span(path) as trace:
                call = begin(seconds, _with_namespace(self.wire.metadata(tenant, trace=trace)))
                failed: grpc.aio.AioRpcError | None = None
                async with asyncio.TaskGroup() as group:
                    feeding = group.create_task(_feed(call, requests))
                    stopping = group.create_task(self._stop(call, feeding, is_fed=requests is not None))
                    try:
                        async for answer in call:
                            permit.succeeded()
                            await context.write(answer)
                        context.set_trailing_metadata(_others(await call.trailing_metadata()))
                    except grpc.aio.AioRpcError as error:
                        failed = error
                    except asyncio.CancelledError:
                        # We cut it ourselves when we drain; any other cancellation is the caller's.
                        if not self._was_cut(requests):
                            raise
                    finally:
                        feeding.cancel()
                        stopping.cancel()
                        call.cancel()
                # Outside of the group, which would wrap it and hide its kind from the breaker.
                if failed is not None and not self._was_cut(requests):
                    raise error_from_rpc(failed)
        return self.draining.is_set()

    def _was_cut(self, requests: AsyncIterator[bytes] | None) -> bool:
        return requests is None and self.draining.is_set()

    async def _stop(self, call: Any, feeding: asyncio.Task[None], *, is_fed: bool) -> None:
        """When this server drains, let a stream that is fed end in order, and cut any other."""
        await self.draining.wait()
        if not is_fed:
            call.cancel()
            return
        feeding.cancel()
        await asyncio.wait({feeding})
        await call.done_writing()


async def _feed(call: Any, requests: AsyncIterator[bytes] | None) -> None:
    """Send what the caller sends; how the call ended is told by its answers."""
    if requests is None:
        return
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        async for request in requests:
            await call.write(request)
        await call.done_writing()


def _refuse_confined() -> None:
    """The memory server sees the brain's credential, so it cannot keep callers to their namespaces."""
    if current_caller().namespaces:
        raise ScopeMissingError(
            "credentials that are confined to namespaces cannot do this through the brain; call the memory server",
            scope="namespace:*",
        )


def _remaining_s() -> float | None:
    left = current_call().remaining_s()
    if left is None:
        return None
    if left <= MARGIN_S:
        raise BudgetSpentError(stage="memory")
    return left - MARGIN_S


def _with_namespace(pairs: Pairs) -> Pairs:
    """The default namespace of the call, which bodies that nobody reads here cannot be given."""
    namespace = current_call().namespace
    if not namespace:
        return pairs
    named = f"{current_tenant().name}:{namespace}"
    return (*(pair for pair in pairs if pair[0] != TENANT), (NAMESPACE_ALIAS, named))


def _others(trailers: Any) -> Pairs:
    return tuple((key, value) for key, value in trailers or () if key != REQUEST_ID)

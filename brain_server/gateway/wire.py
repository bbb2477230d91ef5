"""Calls to the memory server: the brain's credential, the call's ids and trace, what is left of its deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from brain_server.gateway.breaker import Breakers
from rpckit.call import Origin as WireOrigin
from rpckit.call import TraceContext, current_call_or_none
from rpckit.channel import ChannelOptions, ChannelTls, open_channel
from rpckit.metadata import AUTHORIZATION, outgoing
from rpckit.status import error_from_rpc
from rpckit.telemetry.tracing import client_span
from soma_contract.errors import BudgetSpentError
from soma_contract.memory import Origin
from soma_contract.tenant import Tenant

MARGIN_S = 0.03
"""What the brain keeps of a deadline, so that its own answer still arrives."""
DEFAULT_S = 10.0

_Answer = TypeVar("_Answer")


class MemoryWire:
    """One channel to the memory server behind breakers; an async context manager.

    Nothing is retried here: callers retry through their client, queued writes through delivery.
    """

    def __init__(self, target: str, credential: str, breakers: Breakers, tls: ChannelTls | None = None) -> None:
        self.breakers = breakers
        self._target = target
        self._authorization = (AUTHORIZATION, f"Bearer {credential}")
        self._tls = tls
        self._stack = AsyncExitStack()
        self.channel: grpc.aio.Channel

    async def __aenter__(self) -> Self:
        options = ChannelOptions(max_response_bytes=16 * 1024 * 1024, extra=(("grpc.enable_retries", 0),))
        self.channel = await self._stack.enter_async_context(open_channel(self._target, tls=self._tls, options=options))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def metadata(
        self,
        tenant: Tenant | None,
        *,
        origin: Origin | None = None,
        request_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> tuple[tuple[str, str], ...]:
        """The metadata of a call for a tenant, or for none."""
        if tenant is None:
            return (self._authorization,)
        wire = None if origin is None else WireOrigin(origin.brain_id, origin.at)
        passed = outgoing(current_call_or_none(), tenant, origin=wire, request_id=request_id, trace=trace)
        return (self._authorization, *passed)

    def remaining_s(self, most_s: float | None = None) -> float:
        """Seconds a call may take; raises BudgetSpentError when nothing is left."""
        call = current_call_or_none()
        left = call.remaining_s() if call is not None else None
        seconds = DEFAULT_S if left is None else left - MARGIN_S
        if most_s is not None:
            seconds = min(seconds, most_s)
        if seconds <= 0:
            raise BudgetSpentError(stage="memory")
        return seconds

    async def unary(
        self,
        rpc: Callable[..., Any],
        request: Any,
        tenant: Tenant,
        *,
        origin: Origin | None = None,
        request_id: str | None = None,
        most_s: float | None = None,
    ) -> Any:
        """Make one call.  Raises the error the memory server answered, or CircuitBreakerOpenError."""
        seconds = self.remaining_s(most_s)
        name = _name(rpc)
        async with self.breakers.permit(tenant, name, seconds):
            try:
                with client_span(name) as trace:
                    return await rpc(
                        request,
                        timeout=seconds,
                        metadata=self.metadata(tenant, origin=origin, request_id=request_id, trace=trace),
                    )
            except grpc.aio.AioRpcError as failed:
                raise error_from_rpc(failed) from None

    async def stream(
        self, rpc: Callable[..., Any], request: Any, tenant: Tenant, *, bounded: bool = True
    ) -> AsyncIterator[Any]:
        """Make one call with a stream of answers; the breaker judges it by its first answer and its end."""
        seconds = self.remaining_s() if bounded else None
        name = _name(rpc)
        async with self.breakers.permit(tenant, name, seconds):
            with client_span(name) as trace:
                call = rpc(request, timeout=seconds, metadata=self.metadata(tenant, trace=trace))
                try:
                    async for answer in call:
                        yield answer
                except grpc.aio.AioRpcError as failed:
                    raise error_from_rpc(failed) from None
                finally:
                    call.cancel()


def _name(rpc: Callable[..., Any]) -> str:
    method = getattr(rpc, "_method", b"")
    return method.decode() if isinstance(method, bytes) else str(method)

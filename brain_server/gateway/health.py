"""Asking the memory server how it is, for health, breaker and delivery at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2

from brain_server.gateway.breaker import Breakers
from brain_server.gateway.wire import MemoryWire
from rpckit.health import ComponentState, Health

SERVICE = "soma.memory.v1.MemoryService"
ASK_S = 0.9
AWAITED_S = 5.0
SILENT_PROBES = 3
"""So many probes in a row without an answer open the breaker; a refused connection does at once."""


class MemoryProbe:
    """A health probe of the memory server; its findings open and close the dependency's breaker too."""

    name = "memory"

    def __init__(self, wire: MemoryWire, breakers: Breakers, *, on_back: Callable[[], None]) -> None:
        self._wire = wire
        self._breakers = breakers
        self._on_back = on_back
        self._was_healthy = False
        self._silent = 0

    async def check(self) -> None:
        """Return if the memory server serves memories; raises what is wrong if not."""
        check = self._wire.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=ASK_S)
        except grpc.aio.AioRpcError as failed:
            # A busy server is late; only one that stays silent is taken for gone.
            self._silent += failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if failed.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or self._silent >= SILENT_PROBES:
                self._found(False)
            raise ConnectionError(f"the memory server does not answer: {failed.code().name}") from None
        self._silent = 0
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        self._found(serving)
        if not serving:
            raise ConnectionError("the memory server says that it cannot serve")

    def _found(self, healthy: bool) -> None:
        self._breakers.health_probed(healthy)
        if healthy and not self._was_healthy:
            self._on_back()
        self._was_healthy = healthy


async def memory_awaited(health: Health, breakers: Breakers) -> None:
    """Give a memory server that starts at the same time a moment; a brain serves without one as well."""
    with suppress(TimeoutError):
        async with asyncio.timeout(AWAITED_S):
            while not any(  # noqa: ASYNC110 - components are asked, they do not tell
                report.name == MemoryProbe.name and report.state is ComponentState.HEALTHY
                for report in await health.refresh()
            ):
                await asyncio.sleep(0.05)
        # The probes that found nobody yet failed no caller: the first of them must not be let in five at a time.
        breakers.reset()

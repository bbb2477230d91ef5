"""A real grpc.aio server on a port of its own, with the whole chain and handlers over raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from rpckit.channel import ChannelOptions, open_channel
from rpckit.interceptors import AdmissionLimits, Drain, call_chain
from rpckit.server import ServerOptions, bind, new_server
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.metrics import PrometheusMetrics
from soma_contract.errors import CredentialsExpiredError, CredentialsInvalidError
from soma_contract.tenant import ACT_AS, Caller

SERVICE = "test.v1.TestService"

CALLERS = {
    "key-a": Caller("cred-a", frozenset({"a"}), frozenset({"memory:*"})),
    "key-b": Caller("cred-b", frozenset({"b"}), frozenset({"memory:*"})),
    "key-ab": Caller("cred-ab", frozenset({"a", "b"}), frozenset({"memory:read"})),
    "key-suspended": Caller("cred-s", frozenset({"s"}), suspended=frozenset({"s"})),
    "key-confined": Caller("cred-c", frozenset({"a"}), namespaces=("work", "shared-*")),
    "key-brain": Caller("cred-brain", frozenset(), frozenset({ACT_AS, "*"})),
}


class Keys:
    """Knows the callers above."""

    def __init__(self) -> None:
        self.asked = 0

    async def authenticate(self, token: str) -> Caller:
        self.asked += 1
        if token == "key-expired":
            raise CredentialsExpiredError
        if token not in CALLERS:
            raise CredentialsInvalidError
        return CALLERS[token]


def bearer(key: str, **metadata: str) -> tuple[tuple[str, str], ...]:
    """Call metadata with this key; underscores in names stand for dashes."""
    return (
        ("authorization", f"Bearer {key}"),
        *((name.replace("_", "-"), value) for name, value in metadata.items()),
    )


A = bearer("key-a")


def unary(behaviour: Any, **codecs: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(behaviour, **codecs)


def server_stream(behaviour: Any, **codecs: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_stream_rpc_method_handler(behaviour, **codecs)


def client_stream(behaviour: Any, **codecs: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.stream_unary_rpc_method_handler(behaviour, **codecs)


def both_streams(behaviour: Any, **codecs: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.stream_stream_rpc_method_handler(behaviour, **codecs)


@dataclass
class Stand:
    """A running server and a channel to it."""

    server: grpc.aio.Server
    channel: Any
    port: int
    drain: Drain
    metrics: PrometheusMetrics
    keys: Keys

    async def unary(self, name: str, request: bytes = b"", metadata: Any = A, **options: Any) -> bytes:
        call = self.channel.unary_unary(f"/{SERVICE}/{name}")
        response: bytes = await call(request, metadata=metadata, **options)
        return response

    def server_stream(self, name: str, request: bytes = b"", metadata: Any = A, **options: Any) -> Any:
        return self.channel.unary_stream(f"/{SERVICE}/{name}")(request, metadata=metadata, **options)

    def client_stream(self, name: str, metadata: Any = A, **options: Any) -> Any:
        return self.channel.stream_unary(f"/{SERVICE}/{name}")(metadata=metadata, **options)

    def both_streams(self, name: str, metadata: Any = A, **options: Any) -> Any:
        return self.channel.stream_stream(f"/{SERVICE}/{name}")(metadata=metadata, **options)

    async def call(
        self, name: str, handler: grpc.RpcMethodHandler[Any, Any], metadata: Any = A, **options: Any
    ) -> list[bytes]:
        """Call a handler of any kind with one empty message; returns all it answers."""
        path, requests = f"/{SERVICE}/{name}", [b""]
        options["metadata"] = metadata
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                return [await self.channel.unary_unary(path)(b"", **options)]
            case True, False:
                return [await self.channel.stream_unary(path)(iter(requests), **options)]
            case False, True:
                stream = self.channel.unary_stream(path)(b"", **options)
            case _:
                stream = self.channel.stream_stream(path)(iter(requests), **options)
        return [message async for message in stream]

    async def counted(self, operation: str, status: str) -> float:
        """How many calls the metrics have seen end so; a status may reach us before its call has quite ended."""
        async with asyncio.timeout(5):
            while self.drain._running:  # noqa: ASYNC110 - nothing tells when the server has done its books
                await asyncio.sleep(0.001)
        labels = {"operation": operation, "status": status}
        return self.metrics.registry.get_sample_value("sfm_request_total", labels) or 0.0


@asynccontextmanager
async def stand(
    handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
    *,
    limits: AdmissionLimits | None = None,
    options: ServerOptions | None = None,
    prepare: Callable[[grpc.aio.Server], object] = lambda server: None,
    **chain: Any,
) -> AsyncIterator[Stand]:
    """Serve these handlers as ``test.v1.TestService``."""
    drain, metrics, keys = Drain(), PrometheusMetrics(), Keys()
    chain.setdefault("telemetry", CallTelemetry(metrics))
    server = new_server(call_chain(keys, drain=drain, limits=limits, **chain), options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, dict(handlers)),))
    prepare(server)
    port = bind(server, "127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}", options=ChannelOptions(own_connection=True)) as channel:
            yield Stand(server, channel, port, drain, metrics, keys)
    finally:
        await server.stop(None)

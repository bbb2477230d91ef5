"""Wraps a handler of any of grpc's four kinds into one of the same kind.

The kind must stay: a caller of a streaming method that is answered by a unary handler hangs until it sends a message.
Handlers may be generators or coroutines that use ``context.read`` and ``context.write``; messages may be raw bytes.
Inside, all are coroutines. A generator's responses are written here rather than by grpc, so that a cancellation always
arrives in this frame and the generator's ``finally`` runs before the call is over, not when it is garbage collected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from rpckit.layer import Call, Method, Wire
from soma_contract.errors import FieldViolationError, SomaError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Body = Callable[[Call, Any], Awaitable[Any]]
"""The handler's part of a call: (call, request or request iterator) → response, or None for a stream of them."""
Run = Callable[[Method, Wire, Body, Any], Awaitable[Any]]
"""Runs a body within the chain: (method, grpc's context, body, request) → the body's result."""


def wrapped(handler: Handler, method: Method, run: Run) -> Handler:
    """A handler of the same kind whose work is done by ``run``."""
    if handler.request_streaming:
        return _stream_request(handler, method, run)
    return _unary_request(handler, method, run)


def refusing(method: Method, run: Run, error: SomaError) -> Handler:
    """A handler that refuses whatever kind of call it gets: a bidirectional one answers without reading."""

    async def body(call: Call, requests: Any) -> None:
        raise error

    async def stream_stream(requests: Any, wire: Wire) -> None:
        await run(method, wire, body, requests)

    return grpc.stream_stream_rpc_method_handler(stream_stream)


def _unary_request(handler: Handler, method: Method, run: Run) -> Handler:
    # (De)serialising happens within the chain: an unauthenticated body is never parsed, and a failure is answered
    # like any other error instead of with its text.
    decode = _decoder(handler)
    if handler.response_streaming:
        answering = _streaming(handler.unary_stream)

        async def stream_body(call: Call, raw: bytes) -> None:
            await answering(call, decode(raw))

        async def unary_stream(raw: bytes, wire: Wire) -> None:
            await run(method, wire, stream_body, raw)

        return grpc.unary_stream_rpc_method_handler(unary_stream, response_serializer=handler.response_serializer)

    single = _single(handler.unary_unary, handler)

    async def unary_body(call: Call, raw: bytes) -> bytes:
        return await single(call, decode(raw))

    async def unary_unary(raw: bytes, wire: Wire) -> Any:
        return await run(method, wire, unary_body, raw)

    return grpc.unary_unary_rpc_method_handler(unary_unary)


def _stream_request(handler: Handler, method: Method, run: Run) -> Handler:
    decode = _decoder(handler) if handler.request_deserializer else None
    if handler.response_streaming:
        answering = _streaming(handler.stream_stream)

        async def stream_stream(requests: Any, wire: Wire) -> None:
            await run(method, wire, answering, requests)

        return grpc.stream_stream_rpc_method_handler(
            stream_stream, request_deserializer=decode, response_serializer=handler.response_serializer
        )

    single = _single(handler.stream_unary, handler)

    async def stream_unary(requests: Any, wire: Wire) -> Any:
        return await run(method, wire, single, requests)

    return grpc.stream_unary_rpc_method_handler(stream_unary, request_deserializer=decode)


def _single(behaviour: Any, handler: Handler) -> Callable[[Call, Any], Awaitable[bytes]]:
    serialize = handler.response_serializer

    async def body(call: Call, request: Any) -> bytes:
        response = behaviour(request, call.wire)
        if hasattr(response, "__await__"):
            response = await response
        if call.wire.code() not in (None, grpc.StatusCode.OK):
            return b""  # the handler set a status by itself; grpc drops the response
        return bytes(serialize(response) if serialize else response)

    return body


def _streaming(behaviour: Any) -> Callable[[Call, Any], Awaitable[None]]:
    async def body(call: Call, request: Any) -> None:
        responses = behaviour(request, call.wire)
        if not hasattr(responses, "__aiter__"):
            await responses  # writes by itself
            return
        write = call.wire.write
        try:
            async for response in responses:
                await write(response)
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()

    return body


def _decoder(handler: Handler) -> Callable[[bytes], Any]:
    deserialize = handler.request_deserializer
    if deserialize is None:
        return bytes

    def decode(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except (DecodeError, ValueError) as error:
            raise FieldViolationError("the bytes received are not the message this method takes") from error

    return decode

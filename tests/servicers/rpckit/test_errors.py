"""What a caller sees when a call goes wrong, over a real connection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from rpckit.metadata import REQUEST_ID, RETRY_PUSHBACK, STATUS_DETAILS
from rpckit.status import MAX_STATUS_BYTES, OMITTED, error_from_rpc
from soma_contract.errors import (
    Code,
    ComponentUnavailableError,
    FieldViolationError,
    InternalError,
    MemoryNotFoundError,
    SomaError,
    UnimplementedError,
    Violation,
)
from tests.servicers.rpckit.kit import SERVICE, A, bearer, both_streams, client_stream, server_stream, stand, unary

SECRET = "password=hunter2 host=10.0.0.7"


async def refused(call: Awaitable[Any]) -> tuple[SomaError, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value), caught.value


async def collect(stream: Any, received: list[bytes]) -> None:
    async for message in stream:
        received.append(message)  # noqa: PERF401 - what came before an error must be kept


async def drained(stream: Any) -> list[bytes]:
    return [message async for message in stream]


async def unexpected(request: Any, context: Any) -> Any:
    raise RuntimeError(SECRET)


async def unexpected_stream(request: Any, context: Any) -> Any:
    yield b"first"
    raise RuntimeError(SECRET)


async def unexpected_writer(request: Any, context: Any) -> Any:
    await context.write(b"first")
    raise RuntimeError(SECRET)


async def in_a_group(request: Any, context: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(unexpected(request, context))


async def without_response(request: Any, context: Any) -> Any:
    return None


@pytest.mark.parametrize(
    "handler",
    [
        unary(unexpected),
        unary(in_a_group),
        unary(without_response, response_serializer=lambda message: message + SECRET),
        server_stream(unexpected_stream),
        server_stream(unexpected_writer),
        client_stream(unexpected),
        both_streams(unexpected_stream),
        both_streams(unexpected_writer),
    ],
    ids=["unary", "group", "unserialisable", "generator", "writer", "client stream", "both", "both, writer"],
)
async def test_the_text_of_an_unexpected_exception_never_reaches_the_caller(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with stand({"Boom": handler}) as on:
            error, raw = await refused(on.call("Boom", handler))
    everything_sent = f"{raw.details()} {raw.trailing_metadata()} {raw.initial_metadata()}"
    assert "hunter2" not in everything_sent
    assert "RuntimeError" not in everything_sent
    assert isinstance(error, InternalError)
    request_id = dict(raw.trailing_metadata())[REQUEST_ID]
    assert {"request_id": request_id} == error.metadata
    logged = [record for record in caplog.records if record.name == "soma.errors"]
    assert [request_id in record.getMessage() for record in logged] == [True]


async def test_a_typed_error_arrives_whole() -> None:
    async def unavailable(request: Any, context: Any) -> Any:
        raise ComponentUnavailableError(component="postgres", retry_after_s=0.7)

    async with stand({"Get": unary(unavailable)}) as on:
        error, raw = await refused(on.unary("Get", metadata=bearer("key-a", soma_request_id="req-1")))
    assert type(error) is ComponentUnavailableError
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "COMPONENT_UNAVAILABLE")
    assert {"component": "postgres"} == error.metadata
    assert error.retry_after_s == 0.7
    assert str(error) == "The component postgres does not answer; call again after the delay given."
    trailing = dict(raw.trailing_metadata())
    assert (trailing[RETRY_PUSHBACK], trailing[REQUEST_ID]) == ("700", "req-1")


async def test_a_group_of_typed_errors_speaks_with_the_first() -> None:
    async def grouped(request: Any, context: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(missing())

    async def missing() -> None:
        raise MemoryNotFoundError(memory_id="m")

    async with stand({"Get": unary(grouped)}) as on:
        error, _ = await refused(on.unary("Get"))
    assert type(error) is MemoryNotFoundError


async def test_what_a_stream_sent_before_its_error_arrives() -> None:
    async def two_then_error(request: Any, context: Any) -> Any:
        yield b"1"
        yield b"2"
        raise MemoryNotFoundError(memory_id="m")

    async with stand({"Recall": server_stream(two_then_error)}) as on:
        stream, received = on.server_stream("Recall"), list[bytes]()
        error, _ = await refused(collect(stream, received))
    assert received == [b"1", b"2"]
    assert type(error) is MemoryNotFoundError


async def test_ten_thousand_violations_arrive_as_many_as_fit_and_say_how_many_do_not() -> None:
    violations = [Violation(f"records[{n}].text", "must be at most 131072 bytes long ÄÖÜ" * 9) for n in range(10_000)]

    async def many(request: Any, context: Any) -> Any:
        raise FieldViolationError(violations=violations)

    async with stand({"Remember": unary(many)}) as on:
        for _ in range(20):  # a status that is too large is lost at random
            error, raw = await refused(on.unary("Remember"))
            assert len(dict(raw.trailing_metadata())[STATUS_DETAILS]) < MAX_STATUS_BYTES
            assert isinstance(error, FieldViolationError)
            assert len(error.violations) + int(error.metadata[OMITTED]) == 10_000
            assert len(error.violations) >= 4
            assert error.violations[0].field == "records[0].text"


async def test_an_endless_message_is_cut_and_the_error_still_arrives() -> None:
    metadata: dict[str, Any] = {f"k{n}": "v" * 500 for n in range(50)}

    async def endless(request: Any, context: Any) -> Any:
        raise MemoryNotFoundError("ä" * 100_000, memory_id="m" * 100_000, **metadata)

    async with stand({"Get": unary(endless)}) as on:
        for _ in range(20):
            error, raw = await refused(on.unary("Get"))
            assert type(error) is MemoryNotFoundError
            assert len(dict(raw.trailing_metadata())[STATUS_DETAILS]) < MAX_STATUS_BYTES
            assert error.message.startswith("äää")


async def test_a_handler_that_aborts_by_itself_keeps_its_status() -> None:
    async def aborting(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.DATA_LOSS, "its own words")

    async with stand({"Abort": unary(aborting)}) as on:
        _, raw = await refused(on.unary("Abort"))
        assert await on.counted("TestService/Abort", "DATA_LOSS") == 1
    assert (raw.code(), raw.details()) == (grpc.StatusCode.DATA_LOSS, "its own words")


async def test_a_handler_that_sets_a_status_and_returns_keeps_it() -> None:
    async def setting(request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.ALREADY_EXISTS)
        context.set_details("its own words")

    async with stand({"Set": unary(setting, response_serializer=bytes)}) as on:
        _, raw = await refused(on.unary("Set"))
        assert await on.counted("TestService/Set", "ALREADY_EXISTS") == 1
    assert (raw.code(), raw.details()) == (grpc.StatusCode.ALREADY_EXISTS, "its own words")


async def test_a_method_the_servicer_does_not_override_is_unimplemented() -> None:
    async def as_generated(request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    async with stand({"Erase": unary(as_generated)}) as on:
        error, _ = await refused(on.unary("Erase"))
    assert type(error) is UnimplementedError
    assert not error.metadata


@pytest.mark.parametrize("kind", ["unary", "server_stream", "client_stream", "both_streams"])
async def test_a_method_nobody_serves_is_refused_whatever_the_kind_of_call(kind: str) -> None:
    async with stand({}) as on, asyncio.timeout(5):
        call = getattr(on, kind)("Nothing")
        error, _ = await refused(drained(call) if kind in {"server_stream", "both_streams"} else call)
        assert await on.counted("_OTHER", "UNIMPLEMENTED") == 1
    assert type(error) is UnimplementedError


@pytest.mark.parametrize("kind", ["unary", "server_stream", "client_stream", "both_streams"])
async def test_bytes_that_are_no_message_are_the_callers_error_with_no_text_of_ours(kind: str) -> None:
    def parse(raw: bytes) -> str:
        return raw.decode()

    async def answer(request: Any, context: Any) -> Any:
        return b""

    async def answers(request: Any, context: Any) -> Any:
        yield b""

    async def read_all(requests: Any, context: Any) -> Any:
        return b"".join([message async for message in requests])

    async def answer_all(requests: Any, context: Any) -> Any:
        async for message in requests:
            yield message

    handlers = {
        "unary": unary(answer, request_deserializer=parse),
        "server_stream": server_stream(answers, request_deserializer=parse),
        "client_stream": client_stream(read_all, request_deserializer=parse),
        "both_streams": both_streams(answer_all, request_deserializer=parse),
    }
    async with stand(handlers) as on, asyncio.timeout(5):
        if kind == "unary":
            error, raw = await refused(on.unary(kind, b"\xff"))
        elif kind == "server_stream":
            error, raw = await refused(drained(on.server_stream(kind, b"\xff")))
        else:
            call = getattr(on, kind)(kind)
            await call.write(b"\xff")
            error, raw = await refused(call if kind == "client_stream" else drained(call))
    assert type(error) is FieldViolationError
    assert "utf-8" not in str(raw.details())


async def test_a_refused_caller_of_a_stream_is_told_at_once_without_sending_anything() -> None:
    async def never_reached(requests: Any, context: Any) -> Any:
        async for message in requests:
            yield message

    async with stand({"Observe": both_streams(never_reached), "Reinforce": client_stream(never_reached)}) as on:
        async with asyncio.timeout(5):
            error, _ = await refused(drained(on.both_streams("Observe", metadata=())))
            assert error.reason == "CREDENTIALS_MISSING"
            error, _ = await refused(on.client_stream("Reinforce", metadata=()))
            assert error.reason == "CREDENTIALS_MISSING"


async def test_the_request_id_comes_back_on_success_and_is_made_up_if_none_was_sent() -> None:
    async def fine(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("own", "kept"),))
        return b"ok"

    async with stand({"Get": unary(fine)}) as on:
        named = on.channel.unary_unary(f"/{SERVICE}/Get")(b"", metadata=bearer("key-a", soma_request_id="mine"))
        await named
        assert dict(await named.trailing_metadata()) == {"own": "kept", REQUEST_ID: "mine"}
        unnamed = on.channel.unary_unary(f"/{SERVICE}/Get")(b"", metadata=A)
        await unnamed
        assert len(dict(await unnamed.trailing_metadata())[REQUEST_ID]) == 24


async def test_an_error_of_an_outage_without_details_becomes_the_family_of_its_code() -> None:
    async with stand({}) as on:
        port = on.port
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        error, _ = await refused(channel.unary_unary("/x.Y/Z")(b"", timeout=5))
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "")


async def test_a_cancellation_that_is_not_the_calls_own_is_an_error_and_not_silence() -> None:
    async def waits_for_something_cancelled(request: Any, context: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with stand({"Get": unary(waits_for_something_cancelled)}) as on, asyncio.timeout(5):
        error, _ = await refused(on.unary("Get"))
    assert type(error) is InternalError


# --- Controls: what grpc.aio does without us -------------------------------------------------------------------------


@asynccontextmanager
async def bare(handlers: dict[str, Any], *interceptors: grpc.aio.ServerInterceptor) -> AsyncIterator[Any]:
    server = grpc.aio.server(interceptors=interceptors)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def test_grpc_alone_sends_the_text_of_an_exception() -> None:
    async with bare({"Boom": unary(unexpected)}) as channel:
        _, raw = await refused(channel.unary_unary(f"/{SERVICE}/Boom")(b""))
    assert "hunter2" in str(raw.details())


async def test_grpc_alone_loses_the_status_of_an_error_with_large_details() -> None:
    async def large(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong", ((STATUS_DETAILS, b"x" * 20_000),))

    async with bare({"Large": unary(large)}) as channel:
        _, raw = await refused(channel.unary_unary(f"/{SERVICE}/Large")(b""))
    assert raw.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_grpc_alone_hangs_a_stream_that_a_unary_handler_refuses() -> None:
    async def refuse(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    class Refusing(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            return unary(refuse)

    async with bare({"Observe": both_streams(in_a_group)}, Refusing()) as channel:
        call = channel.stream_stream(f"/{SERVICE}/Observe")()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.read(), 0.3)
        call.cancel()


async def test_grpc_alone_answers_nothing_when_a_handler_raises_a_cancellation() -> None:
    async def cancelled(request: Any, context: Any) -> Any:
        raise asyncio.CancelledError

    async with bare({"Get": unary(cancelled)}) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Get")(b"", timeout=0.3)
        _, raw = await refused(call)
    assert raw.code() is grpc.StatusCode.DEADLINE_EXCEEDED

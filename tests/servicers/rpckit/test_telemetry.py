"""What is told about calls: the log line, the metrics, the spans. And what is never told."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rpckit.call import current_call
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.logs import JsonFormatter
from rpckit.telemetry.tracing import Spans
from soma_contract.errors import MemoryNotFoundError
from tests.servicers.rpckit.kit import Stand, bearer, both_streams, client_stream, server_stream, stand, unary

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


async def fine(request: Any, context: Any) -> bytes:
    return b"ok"


async def missing(request: Any, context: Any) -> bytes:
    raise MemoryNotFoundError(memory_id="m")


async def broken(request: Any, context: Any) -> bytes:
    raise RuntimeError("a defect")


async def fine_all(request: Any, context: Any) -> Any:
    yield b"ok"


async def writer(request: Any, context: Any) -> None:
    await context.write(b"ok")


@contextmanager
def logged(level: int = logging.INFO) -> Iterator[list[dict[str, Any]]]:
    """Everything the process logs, as the lines it would write."""
    lines: list[dict[str, Any]] = []
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        lines.extend(json.loads(line) for line in stream.getvalue().splitlines())


async def ended(on: Stand) -> None:
    await on.counted("", "")


async def fails(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_each_call_writes_one_line_that_says_what_it_was_and_how_it_ended() -> None:
    with logged() as lines:
        async with stand({"Get": unary(fine), "Missing": unary(missing)}) as on:
            await on.unary("Get", metadata=bearer("key-a", soma_request_id="r1", traceparent=TRACEPARENT))
            await fails(on.unary("Missing", metadata=bearer("key-b", soma_request_id="r2")))
            await fails(on.unary("Get", metadata=(("soma-request-id", "r3"),)))
            await ended(on)
    calls = [line for line in lines if line["logger"] == "soma.calls"]
    for line in calls:
        assert line.pop("duration_ms") > 0
        assert line.pop("at")
    common = {"logger": "soma.calls", "level": "info", "message": "call"}
    get, gone = "/test.v1.TestService/Get", "/test.v1.TestService/Missing"
    assert calls == [
        {
            **common,
            "method": get,
            "code": "OK",
            "request_id": "r1",
            "tenant": "a",
            "credential": "cred-a",
            "trace_id": TRACE,
        },
        {
            **common,
            "method": gone,
            "code": "NOT_FOUND",
            "request_id": "r2",
            "tenant": "b",
            "credential": "cred-b",
            "reason": "MEMORY_NOT_FOUND",
            "stage": "handler",
        },
        {
            **common,
            "method": get,
            "code": "UNAUTHENTICATED",
            "request_id": "r3",
            "reason": "CREDENTIALS_MISSING",
            "stage": "authentication",
        },
    ]


async def test_a_secret_is_in_no_line_and_no_metric() -> None:
    with logged(logging.DEBUG) as lines:
        async with stand({"Get": unary(fine), "Boom": unary(broken)}) as on:
            await on.unary("Get")
            await fails(on.unary("Boom"))
            await fails(on.unary("Get", metadata=bearer("soma_1_verysecret")))
            await ended(on)
            told = on.metrics.exposition().decode()
    assert len(lines) >= 4
    for secret in ("key-a", "verysecret"):
        assert secret not in json.dumps(lines)
        assert secret not in told


async def test_what_a_handler_logs_carries_the_request_id_and_tenant_of_its_call() -> None:
    async def chatty(request: Any, context: Any) -> bytes:
        logging.getLogger("soma.test").info("working")
        return b""

    with logged() as lines:
        async with stand({"Get": unary(chatty)}) as on:
            await on.unary("Get", metadata=bearer("key-a", soma_request_id="r1"))
    (line,) = [line for line in lines if line["logger"] == "soma.test"]
    assert (line["message"], line["request_id"], line["tenant"]) == ("working", "r1", "a")


async def test_an_unexpected_exception_is_logged_with_its_trace_and_request_id() -> None:
    with logged() as lines:
        async with stand({"Boom": unary(broken)}) as on:
            await fails(on.unary("Boom", metadata=bearer("key-a", soma_request_id="r1")))
            await ended(on)
    (line,) = [line for line in lines if line["logger"] == "soma.errors"]
    assert line["request_id"] == "r1"
    assert "RuntimeError: a defect" in line["exception"]


async def test_calls_are_counted_by_operation_and_status_and_never_by_tenant() -> None:
    async with stand({"Get": unary(fine), "Missing": unary(missing)}) as on:
        for key in ("key-a", "key-a", "key-b"):
            await on.unary("Get", metadata=bearer(key))
        await fails(on.unary("Missing"))
        await fails(on.unary("Get", metadata=()))
        await fails(on.unary("NoSuchMethod/or/other"))
        assert await on.counted("TestService/Get", "OK") == 3
        assert await on.counted("TestService/Get", "UNAUTHENTICATED") == 1
        assert await on.counted("TestService/Missing", "NOT_FOUND") == 1
        assert await on.counted("_OTHER", "UNIMPLEMENTED") == 1
        sample = on.metrics.registry.get_sample_value
        assert sample("sfm_request_duration_seconds_count", {"operation": "TestService/Get"}) == 4
        labels = {name for metric in on.metrics.registry.collect() for each in metric.samples for name in each.labels}
    assert labels == {"operation", "status", "le"}


async def test_spans_join_the_callers_trace_and_are_passed_on() -> None:
    async def passing(request: Any, context: Any) -> bytes:
        inner = otel_trace.get_current_span().get_span_context()
        return f"{inner.trace_id:032x} {inner.span_id:016x} {current_call().trace.traceparent}".encode()

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with stand(
        {"Get": unary(passing), "Missing": unary(missing), "Boom": unary(broken)},
        telemetry=CallTelemetry(spans=Spans(provider)),
    ) as on:
        metadata = bearer("key-a", traceparent=TRACEPARENT, soma_request_id="r1")
        trace_id, span_id, passed_on = (await on.unary("Get", metadata=metadata)).decode().split()
        await fails(on.unary("Missing", metadata=metadata))
        await fails(on.unary("Boom"))
        await ended(on)
    get, gone, boom = exporter.get_finished_spans()
    assert get.name == "test.v1.TestService/Get"
    assert get.kind is otel_trace.SpanKind.SERVER
    assert get.parent is not None
    assert f"{get.parent.span_id:016x}" == PARENT
    assert (trace_id, span_id) == (TRACE, f"{get.context.span_id:016x}")
    assert passed_on == f"00-{TRACE}-{span_id}-01"
    assert dict(get.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": "test.v1.TestService/Get",
        "rpc.response.status_code": "OK",
        "soma.request_id": "r1",
        "soma.tenant": "a",
    }
    assert (gone.attributes or {})["error.type"] == "MEMORY_NOT_FOUND"
    assert gone.status.status_code is otel_trace.StatusCode.UNSET
    assert boom.status.status_code is otel_trace.StatusCode.ERROR
    assert boom.parent is None
    assert not boom.events  # a recorded exception would carry its text


@pytest.mark.parametrize(
    "handler", [unary(fine), server_stream(fine_all), server_stream(writer), client_stream(fine), both_streams(writer)]
)
async def test_handlers_of_every_style_work_with_all_telemetry_on(handler: Any) -> None:
    telemetry = CallTelemetry(spans=Spans(TracerProvider()))
    async with stand({"Get": handler}, telemetry=telemetry) as on:
        assert await on.call("Get", handler) == [b"ok"]


@pytest.mark.filterwarnings("ignore:coroutine 'writer' was never awaited")
async def test_opentelemetrys_own_interceptor_breaks_handlers_that_write() -> None:
    """The control, and the reason for an interceptor of our own."""
    from opentelemetry.instrumentation.grpc import aio_server_interceptor

    interceptor: Any = aio_server_interceptor
    server = grpc.aio.server(interceptors=[interceptor(tracer_provider=TracerProvider())])
    handlers = {"Watch": server_stream(writer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.TestService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in channel.unary_stream("/test.v1.TestService/Watch")(b""):
                pass
    await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN

"""Spans by OpenTelemetry, for those who configure it; W3C context in, W3C context on.

Names follow the current semantic conventions for RPC and databases; they stand here and nowhere else, because they
still move.

    server span, one a call (Spans)
    ├── client span, one a call to the next server (client_span)
    └── client span, one a trip to a store (store_span)

What a call starts finds its tracer in the call's own context, so two servers in one process do not mix, and where
nothing is recorded a span costs the look into that context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import replace

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rpckit.call import TraceContext, enter_call
from rpckit.layer import Call
from rpckit.metadata import BAGGAGE, TRACEPARENT, TRACESTATE
from soma_contract.errors import Code, SomaError

_PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

_SERVER_FAULTS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""The codes that make a server's span an error; the others are the caller's affair."""


_tracer: ContextVar[otel_trace.Tracer | None] = ContextVar("soma_tracer", default=None)
"""The tracer of the call this code runs in; None where no span is recorded."""


class Spans:
    """A server span for each call, child of the caller's."""

    def __init__(self, provider: otel_trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("soma.rpckit")

    @contextmanager
    def linked(self, name: str, origin: str, attributes: dict[str, str]) -> Iterator[None]:
        """A span of work that an earlier call, with the traceparent ``origin``, left to be done.

        Where that call still runs and waits for it, nothing is added: what is done is a part of the call.
        """
        cause = otel_trace.get_current_span(_extracted(TraceContext(origin))).get_span_context()
        current = otel_trace.get_current_span().get_span_context()
        if current.is_valid and current.trace_id == cause.trace_id:
            yield
            return
        span = self._tracer.start_span(
            name,
            context=Context(),
            kind=otel_trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=[otel_trace.Link(cause)] if cause.is_valid else (),
        )
        with _current(span, self._tracer):
            yield

    def begin(self, call: Call) -> None:
        """Start the span, make it current, and make it the parent of what this call calls in turn."""
        if call.method.is_open:
            return
        parent = _extracted(call.received.trace)
        span = self._tracer.start_span(
            call.method.path.lstrip("/") if call.method.operation != "_OTHER" else "_OTHER",
            context=parent,
            kind=otel_trace.SpanKind.SERVER,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": call.method.path.lstrip("/"),
                "soma.request_id": call.context.request_id,
            },
        )
        current = otel_trace.set_span_in_context(span, parent)
        call.span = _CallSpan(span, otel_context.attach(current))
        if span.is_recording():
            _tracer.set(self._tracer)
        call.context = replace(call.context, trace=injected(current))
        enter_call(call.context)


class _CallSpan:
    __slots__ = ("_span", "_token")

    def __init__(self, span: otel_trace.Span, token: Token[Context]) -> None:
        self._span = span
        self._token = token

    def end(self, call: Call) -> None:
        """Note how the call ended."""
        self._span.set_attribute("rpc.response.status_code", call.code.name)
        if call.context.tenant is not None:
            self._span.set_attribute("soma.tenant", call.context.tenant.name)
        if call.code is not Code.OK:
            self._span.set_attribute("error.type", call.reason or call.code.name)
        if call.code in _SERVER_FAULTS:
            self._span.set_status(otel_trace.StatusCode.ERROR)
        self._span.end()
        otel_context.detach(self._token)


@contextmanager
def client_span(method: str) -> Iterator[TraceContext | None]:
    """A span around one call to another server; yields the headers to send, or None to send those of the call."""
    tracer = _tracer.get()
    if tracer is None:
        yield None
        return
    name = method.lstrip("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    # Not made the current span: a stream's caller leaves and enters this frame with every answer.
    span = tracer.start_span(name, kind=otel_trace.SpanKind.CLIENT, attributes=attributes)
    with _ending(span):
        yield injected(otel_trace.set_span_in_context(span))


@contextmanager
def store_span(system: str, operation: str) -> Iterator[None]:
    """A span around one trip to a store, such as ``milvus`` and ``Search``."""
    tracer = _tracer.get()
    if tracer is None:
        yield
        return
    attributes = {"db.system.name": system, "db.operation.name": operation}
    span = tracer.start_span(f"{operation} {system}", kind=otel_trace.SpanKind.CLIENT, attributes=attributes)
    with _ending(span):
        yield


@contextmanager
def _current(span: otel_trace.Span, tracer: otel_trace.Tracer) -> Iterator[None]:
    attached = otel_context.attach(otel_trace.set_span_in_context(span))
    recording = _tracer.set(tracer if span.is_recording() else None)
    try:
        with _ending(span):
            yield
    finally:
        _tracer.reset(recording)
        otel_context.detach(attached)


@contextmanager
def _ending(span: otel_trace.Span) -> Iterator[None]:
    """End a span with the block; an error is named by its reason, never by its text."""
    try:
        yield
    except SomaError as error:
        span.set_attribute("error.type", error.reason or error.code.name)
        if error.code in _SERVER_FAULTS:
            span.set_status(otel_trace.StatusCode.ERROR)
        raise
    except Exception as error:
        code = error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None
        span.set_attribute("error.type", code.name if code else type(error).__name__)
        span.set_status(otel_trace.StatusCode.ERROR)
        raise
    finally:
        span.end()


def _extracted(trace: TraceContext) -> Context:
    headers = {TRACEPARENT: trace.traceparent, TRACESTATE: trace.tracestate, BAGGAGE: trace.baggage}
    return _PROPAGATOR.extract({key: value for key, value in headers.items() if value}, Context())


def injected(context: Context | None = None) -> TraceContext:
    """The W3C headers of ``context``, or of the current one."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, context)
    return TraceContext(headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""), headers.get(BAGGAGE, ""))

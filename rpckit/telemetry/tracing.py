"""Spans by OpenTelemetry, for those who configure it; W3C context in, W3C context on.

Names follow the current semantic conventions for RPC; they stand here and nowhere else, because they still move.
"""

from __future__ import annotations

from contextvars import Token
from dataclasses import replace

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rpckit.call import TraceContext, enter_call
from rpckit.layer import Call
from rpckit.metadata import BAGGAGE, TRACEPARENT, TRACESTATE
from soma_contract.errors import Code

_PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

_SERVER_FAULTS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""The codes that make a server's span an error; the others are the caller's affair."""


class Spans:
    """A server span for each call, child of the caller's."""

    def __init__(self, provider: otel_trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("soma.rpckit")

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


def _extracted(trace: TraceContext) -> Context:
    headers = {TRACEPARENT: trace.traceparent, TRACESTATE: trace.tracestate, BAGGAGE: trace.baggage}
    return _PROPAGATOR.extract({key: value for key, value in headers.items() if value}, Context())


def injected(context: Context | None = None) -> TraceContext:
    """The W3C headers of ``context``, or of the current one."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, context)
    return TraceContext(headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""), headers.get(BAGGAGE, ""))

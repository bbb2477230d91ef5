"""What is told about each call when it ends: a log line, two metrics, a span.

OpenTelemetry's own interceptor for grpc.aio iterates over what a handler returns and so breaks handlers that use
``context.write()``, the standard health ``Watch`` among them; hence this one.
"""

from __future__ import annotations

import logging
import time

from rpckit.layer import Call
from rpckit.telemetry.metrics import Counts, Metrics, NoMetrics, Observes
from rpckit.telemetry.tracing import Spans
from soma_contract.errors import Code

_log = logging.getLogger("soma.calls")

_LEVELS = {
    Code.INTERNAL: logging.ERROR,
    Code.UNKNOWN: logging.ERROR,
    Code.UNAVAILABLE: logging.WARNING,
}


class CallTelemetry:
    """Watches calls from outside the chain, so that refusals count as well."""

    def __init__(self, metrics: Metrics | None = None, *, spans: Spans | None = None) -> None:
        """Without arguments only the log line is written; it is off when the logger ``soma.calls`` is."""
        metrics = metrics or NoMetrics()
        self._spans = spans
        self._requests = metrics.counter("sfm_request_total", "Calls ended.", ("operation", "status"))
        self._durations = metrics.histogram(
            "sfm_request_duration_seconds", "Time from a call's arrival to its status.", ("operation",)
        )
        self._bound: dict[tuple[str, Code], tuple[Counts, Observes]] = {}

    def begin(self, call: Call) -> None:
        """A call has arrived."""
        if self._spans is not None:
            self._spans.begin(call)

    def finish(self, call: Call) -> None:
        """The call has ended with ``call.code``."""
        duration_s = time.perf_counter() - call.started
        operation, code = call.method.operation, call.code
        bound = self._bound.get((operation, code))
        if bound is None:
            bound = self._requests.labels(operation, code.name), self._durations.labels(operation)
            self._bound[operation, code] = bound
        bound[0].inc()
        bound[1].observe(duration_s)
        if call.span is not None:
            call.span.end(call)
        level = logging.DEBUG if call.method.is_open else _LEVELS.get(code, logging.INFO)
        if _log.isEnabledFor(level):
            record = logging.LogRecord(_log.name, level, __file__, 0, "call", (), None)  # no walk up the stack
            record.fields = _fields(call, duration_s)
            _log.handle(record)


def _fields(call: Call, duration_s: float) -> dict[str, object]:
    context = call.context
    fields: dict[str, object] = {
        "method": call.method.path,
        "code": call.code.name,
        "duration_ms": round(duration_s * 1e3, 3),
        "request_id": context.request_id,
    }
    if context.tenant is not None:
        fields["tenant"] = context.tenant.name
    if call.caller is not None:
        fields["credential"] = call.caller.credential_id
    if call.reason:
        fields["reason"] = call.reason
        fields["stage"] = call.stage
    if context.trace.traceparent:
        fields["trace_id"] = context.trace.traceparent[3:35]
    return fields

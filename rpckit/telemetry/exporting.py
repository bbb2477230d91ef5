"""Where spans go: an OpenTelemetry collector, if one is configured."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rpckit.telemetry.tracing import Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_FLUSH_MS = 5_000


@asynccontextmanager
async def exported_spans(service: str, version: str, endpoint: str) -> AsyncIterator[Spans | None]:
    """Spans that a thread sends in batches, what is left at the end included; None where ``endpoint`` is empty.

    Everything else OpenTelemetry reads from its own variables: OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_SCHEDULE_DELAY, and others.
    """
    if not endpoint or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield None
        return
    # Loaded only where it is used: it costs a start a third of a second.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.namespace": "soma",
            "service.name": service,
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}/{os.getpid()}",
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint)))
    try:
        yield Spans(provider)
    finally:
        # A collector that is away must not hold up the end of a server for long.
        await asyncio.to_thread(provider.force_flush, _FLUSH_MS)
        await asyncio.to_thread(provider.shutdown)


def _exporter(endpoint: str) -> SpanExporter:
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter()

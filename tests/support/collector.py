"""An OpenTelemetry collector in memory: what servers export by OTLP can be waited for and looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.trace.v1 import trace_pb2

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One span as it was exported."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    links: tuple[str, ...]
    """Trace ids of the linked spans."""


class Collector:
    """Takes spans while entered."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.endpoint = ""
        self._arrived = asyncio.Condition()
        self._server: grpc.aio.Server

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        export = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=pb.ExportTraceServiceRequest.FromString,
            response_serializer=pb.ExportTraceServiceResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": export})
        self._server.add_generic_rpc_handlers((handler,))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.stop(None)

    async def _export(self, request: Any, context: Any) -> Any:
        async with self._arrived:
            self.spans += _read(request)
            self._arrived.notify_all()
        return pb.ExportTraceServiceResponse()

    async def until(self, enough: Callable[[Sequence[Seen]], bool], trace_id: str = "") -> list[Seen]:
        """The spans of a trace, or all, as soon as there are enough of them; TimeoutError after 30 s."""
        async with asyncio.timeout(WAIT_S), self._arrived:
            while not enough(found := [span for span in self.spans if trace_id in ("", span.trace_id)]):
                await self._arrived.wait()
        return found


def _read(request: pb.ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service=about["service.name"],
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes={pair.key: pair.value.string_value for pair in span.attributes},
                    links=tuple(link.trace_id.hex() for link in span.links),
                )

"""The composition root: settings to a running memory server, every resource on one exit stack."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from memory_server.core.sessions import Sessions
from memory_server.opening import Stores, open_stores
from memory_server.ops import leg_metrics, ops_port
from memory_server.servicers.batch import BatchServicer
from memory_server.servicers.graph import GraphServicer
from memory_server.servicers.memory import MemoryServicer
from memory_server.servicers.operator import Operations, OperatorServicer
from memory_server.servicers.sessions import SessionServicer
from memory_server.servicers.tenants import TenantServicer
from memory_server.servicers.watch import WatchServicer
from memory_server.settings import MemorySettings
from memory_server.stores.clock import SystemClock
from memory_server.stores.postgres.sessions import PostgresSessions
from memory_server.wiring import wire
from rpckit.channelz import channelz_port
from rpckit.health import Health
from rpckit.interceptors.admission import AdmissionLimits, Drain
from rpckit.interceptors.chain import call_chain
from rpckit.lifecycle import Served, Shutdown, StopRequest, serve
from rpckit.server import ServerOptions, ServerTls, add_reflection, bind, new_server
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.exporting import exported_spans
from rpckit.telemetry.metrics import PrometheusMetrics
from rpckit.unserved import served
from soma.admin.v1 import operator_service_pb2_grpc, tenant_service_pb2_grpc
from soma.batch.v1 import batch_service_pb2_grpc
from soma.graph.v1 import graph_service_pb2_grpc
from soma.memory.v1 import memory_service_pb2_grpc, session_service_pb2_grpc, watch_service_pb2_grpc
from soma_contract.convert.operations import EmbeddingIdentity, ServerIdentity
from soma_contract.ids import new_memory_id
from soma_contract.scopes import SCOPES, TENANTLESS

_log = logging.getLogger("soma.memory")

# What each service cannot do without; a service that is not listed is not served here.
SERVICES = {
    "soma.memory.v1.MemoryService": ("postgres",),
    "soma.graph.v1.GraphService": ("postgres",),
    "soma.memory.v1.SessionService": ("postgres",),
    "soma.batch.v1.BatchService": ("postgres",),
    "soma.memory.v1.WatchService": ("postgres",),
    "soma.admin.v1.TenantService": ("postgres",),
    "soma.admin.v1.OperatorService": (),
}
ESSENTIAL = frozenset({"postgres"})


@dataclass(frozen=True, slots=True)
class _Probe:
    """A health probe made of a name and a question."""

    name: str
    check: Callable[[], Coroutine[Any, Any, None]]


async def run(settings: MemorySettings, on_port: Callable[[int], None] | None = None, *, workers: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; ``on_port`` is told the port when calls are taken.

    As one of several ``workers`` it shares its port.
    """
    stop = StopRequest()

    async def build(stack: AsyncExitStack) -> Served:
        return await _build(settings, stack, stop, on_port, workers)

    await serve(build, Shutdown(notice_s=settings.notice_s, grace_s=settings.drain_s), stop=stop, signals=True)


async def _build(
    settings: MemorySettings,
    stack: AsyncExitStack,
    stop: StopRequest,
    on_port: Callable[[int], None] | None,
    workers: bool,
) -> Served:
    clock = SystemClock()
    spans = await stack.enter_async_context(
        exported_spans("soma-memory-server", version("soma-memory"), settings.otel_endpoint)
    )
    stores = await open_stores(settings, stack)
    cases, queue = await wire(settings, stores, clock, stack)
    drain = Drain()
    health = await stack.enter_async_context(_health(stores))
    metrics = PrometheusMetrics()
    cases.recalling.on_summary = leg_metrics(metrics)
    chain = call_chain(
        cases.identity,
        drain=drain,
        telemetry=CallTelemetry(metrics, spans=spans),
        limits=AdmissionLimits(calls=settings.memory_max_calls, calls_per_tenant=settings.memory_max_calls_per_tenant),
        scopes=SCOPES,
        tenantless=TENANTLESS,
        tenants=cases.identity,
    )
    server = new_server(chain, ServerOptions(connection_age_s=settings.connection_age_s or None, workers=workers))
    profile = stores.embedder.profile
    operations = Operations(
        server=ServerIdentity(
            "memory", version("soma-memory"), f"{socket.gethostname()}/{new_memory_id()}", clock.now(), tuple(SERVICES)
        ),
        embedding=EmbeddingIdentity(profile.key, profile.name, profile.dimension),
        health=health,
        drain=drain,
        clock=clock,
        queue=queue,
        index=stores.index,
        indexing=cases.indexing if settings.indexer else None,
        index_jobs=cases.index_jobs,
        profiles={one.profile.key: one.profile.dimension for one in stores.embedders},
        stop=stop.ask,
        notice_s=settings.notice_s,
        grace_s=settings.drain_s,
        essential=ESSENTIAL,
    )
    memory = MemoryServicer(cases.writing, cases.reading, cases.recalling, cases.deleting, drain)
    memory_service_pb2_grpc.add_MemoryServiceServicer_to_server(memory, server)
    graph = GraphServicer(cases.linking, cases.traversing, cases.reinforcing)
    graph_service_pb2_grpc.add_GraphServiceServicer_to_server(graph, server)
    tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(
        served(TenantServicer)(cases.identity, cases.policies), server
    )
    operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(served(OperatorServicer)(operations), server)
    batch = served(BatchServicer)(cases.writing, cases.recalling, cases.importing, cases.exporting, drain)
    batch_service_pb2_grpc.add_BatchServiceServicer_to_server(batch, server)
    watch_service_pb2_grpc.add_WatchServiceServicer_to_server(WatchServicer(cases.watching, drain), server)
    sessions = SessionServicer(Sessions(PostgresSessions(stores.pools)))
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
    health.add_to(server)
    if settings.memory_reflection:
        add_reflection(server, SERVICES)
    await stack.enter_async_context(ops_port(settings.memory_ops_address, metrics, health, stores.pools, queue))
    await stack.enter_async_context(channelz_port(settings.memory_channelz_address))
    port = bind(server, settings.memory_address, _tls(settings))
    await health.wait_ready()

    def started() -> None:
        _log.info("memory server takes calls", extra={"fields": {"port": port, "embedder": profile.key}})
        if on_port is not None:
            on_port(port)

    return Served(server, drain, health, on_started=started)


def _health(stores: Stores) -> Health:
    probes = [
        _Probe("postgres", stores.pools.probe),
        _Probe("milvus", stores.index.probe),
        _Probe("redis", stores.cache.probe),
    ]
    return Health(probes, services=SERVICES)


def _tls(settings: MemorySettings) -> ServerTls | None:
    if settings.memory_tls_cert is None or settings.memory_tls_key is None:
        return None
    return ServerTls(settings.memory_tls_cert, settings.memory_tls_key)

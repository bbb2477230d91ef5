"""The composition root: settings to a running brain server, every resource on one exit stack."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc

from brain_server.core.assembling import Assembling
from brain_server.core.batching import Batching
from brain_server.core.degradation import Degradation
from brain_server.core.following import Following
from brain_server.core.linking import Linking
from brain_server.core.observing import Closing, Observing
from brain_server.core.own_hits import WorkingLeg
from brain_server.core.promoting import Promoting
from brain_server.core.reading import Reading
from brain_server.core.recalling import Recalling
from brain_server.core.remembering import Remembering
from brain_server.core.vectors import TextVectors
from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.salience import WorkingRules
from brain_server.gateway.batches import BatchGateway
from brain_server.gateway.breaker import Breakers
from brain_server.gateway.commands import encoded
from brain_server.gateway.delivery import Delivery
from brain_server.gateway.endings import WatchedEndings
from brain_server.gateway.graph import GraphGateway, GraphSender, OutboxChanges, encoded_change
from brain_server.gateway.health import MemoryProbe, memory_awaited
from brain_server.gateway.identity import BrainIdentity
from brain_server.gateway.memory import MemoryGateway
from brain_server.gateway.metrics import BrainMetrics
from brain_server.gateway.operations import BreakerOperations, DeliveryOperations, MemoryServerOperations
from brain_server.gateway.outbox import Outbox
from brain_server.gateway.passthrough import Passthrough
from brain_server.gateway.pending import OutboxWrites
from brain_server.gateway.sending import MemorySender
from brain_server.gateway.sessions import MirroredSessions
from brain_server.gateway.tracing import TracedSender
from brain_server.gateway.wire import MemoryWire
from brain_server.ops import leg_metrics, ops_port
from brain_server.ports import Sender, SystemClock
from brain_server.servicers.batch import BatchServicer
from brain_server.servicers.context import ContextServicer
from brain_server.servicers.graph import GraphServicer
from brain_server.servicers.memory import MemoryServicer
from brain_server.servicers.operator import Operations, OperatorServicer
from brain_server.servicers.working_memory import WorkingMemoryServicer
from brain_server.settings import BrainSettings
from brain_server.stores.personas_file import PersonasFile
from brain_server.stores.sqlite.entries import SqliteOutbox
from brain_server.stores.sqlite.file import BrainFile
from brain_server.stores.sqlite.items import SqliteSessions
from brain_server.stores.sqlite.verdicts import SqliteVerdicts
from rpckit.channel import ChannelTls
from rpckit.channelz import channelz_port
from rpckit.health import Health
from rpckit.interceptors.admission import AdmissionLimits, Drain
from rpckit.interceptors.chain import call_chain
from rpckit.lifecycle import Served, Shutdown, StopRequest, serve
from rpckit.server import ServerOptions, ServerTls, add_reflection, bind, new_server
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.exporting import exported_spans
from rpckit.telemetry.metrics import PrometheusMetrics
from rpckit.telemetry.tracing import Spans
from rpckit.unserved import served
from soma.admin.v1 import operator_service_pb2_grpc
from soma.graph.v1 import graph_service_pb2_grpc
from soma.memory.v1 import context_service_pb2_grpc, memory_service_pb2_grpc, working_memory_service_pb2_grpc
from soma_contract.convert.operations import ServerIdentity
from soma_contract.embedders.base import Embedder
from soma_contract.embedders.factory import build_embedder
from soma_contract.ids import new_memory_id
from soma_contract.scopes import SCOPES, TENANTLESS

_log = logging.getLogger("soma.brain")

SERVICES: dict[str, tuple[str, ...]] = {
    "soma.memory.v1.MemoryService": ("outbox",),
    "soma.graph.v1.GraphService": ("outbox",),
    "soma.memory.v1.WorkingMemoryService": ("outbox",),
    "soma.memory.v1.ContextService": ("outbox",),
    "soma.batch.v1.BatchService": (),
    "soma.memory.v1.WatchService": (),
    "soma.admin.v1.OperatorService": (),
}
"""What each service cannot do without: an outage of the memory server leaves the brain serving, degraded."""

if TYPE_CHECKING:
    from brain_server.gateway.language_model import ChatModel

_DRAIN_OUTBOX_S = 5.0


@dataclass(frozen=True, slots=True)
class _Probe:
    """A health probe made of a name and a question."""

    name: str
    check: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is opened first: the file and the way to the memory server, and what stands on them."""

    clock: SystemClock
    metrics: PrometheusMetrics
    reports: BrainMetrics
    file: BrainFile
    breakers: Breakers
    wire: MemoryWire
    kept: SqliteOutbox
    delivery: Delivery
    embedder: Embedder
    personas: PersonasFile
    model: ChatModel | None


@dataclass(frozen=True, slots=True)
class _Cases:
    """The use cases."""

    remembering: Remembering
    reading: Reading
    recalling: Recalling
    working: WorkingMemory
    observing: Observing
    promoting: Promoting
    default_rules: WorkingRules


async def run(settings: BrainSettings, on_port: Callable[[int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``on_port`` is told the port when calls are taken."""
    stop = StopRequest()

    async def build(stack: AsyncExitStack) -> Served:
        return await _build(settings, stack, stop, on_port)

    await serve(build, Shutdown(notice_s=settings.notice_s, grace_s=settings.drain_s), stop=stop, signals=True)


async def _build(
    settings: BrainSettings, stack: AsyncExitStack, stop: StopRequest, on_port: Callable[[int], None] | None
) -> Served:
    spans = await stack.enter_async_context(
        exported_spans("soma-brain-server", version("soma-memory"), settings.otel_endpoint)
    )
    parts = await _open(settings, stack, spans)
    cases = await _wire(settings, parts)
    identity = BrainIdentity(
        parts.wire,
        SqliteVerdicts(parts.file),
        parts.clock,
        fresh_s=settings.verdict_fresh_s,
        outage_s=settings.verdict_outage_s,
    )
    await identity.load()
    health = await stack.enter_async_context(_health(parts))
    drain = Drain()
    chain = call_chain(
        identity,
        drain=drain,
        telemetry=CallTelemetry(parts.metrics, spans=spans),
        limits=AdmissionLimits(calls=settings.brain_max_calls, calls_per_tenant=settings.brain_max_calls_per_tenant),
        scopes=SCOPES,
        tenantless=TENANTLESS,
    )
    server = new_server(chain, ServerOptions(connection_age_s=settings.connection_age_s or None))
    _serve_memories(server, parts, cases, drain)
    _serve_links(server, parts, cases)
    operations = _operations(settings, parts, health, drain, stop)
    operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(served(OperatorServicer)(operations), server)
    health.add_to(server)
    if settings.brain_reflection:
        add_reflection(server, SERVICES)
    await stack.enter_async_context(ops_port(settings.brain_ops_address, parts.metrics, health, operations.outbox))
    await stack.enter_async_context(channelz_port(settings.brain_channelz_address))
    port = bind(server, settings.brain_address, _tls(settings))
    await health.wait_ready()
    await memory_awaited(health, parts.breakers)
    await stack.enter_async_context(_running(parts, cases))

    def started() -> None:
        _log.info("brain takes calls", extra={"fields": {"port": port, "brain": parts.file.brain_id}})
        if on_port is not None:
            on_port(port)

    async def flush_outbox() -> None:
        await parts.delivery.drain(_DRAIN_OUTBOX_S)

    return Served(server, drain, health, flushes=(cases.working.drain, flush_outbox), on_started=started)


async def _open(settings: BrainSettings, stack: AsyncExitStack, spans: Spans | None) -> _Parts:
    """Open the file, the channel and the embedder, and start to deliver what the outbox holds."""
    clock, metrics = SystemClock(), PrometheusMetrics()
    reports = BrainMetrics(metrics)
    file = await stack.enter_async_context(
        BrainFile(settings.data_dir, key_file=settings.outbox_key_file, brain_id=settings.brain_id)
    )
    credential = (await asyncio.to_thread(settings.service_credential_file.read_text)).strip()
    tls = ChannelTls(settings.brain_memory_ca) if settings.brain_memory_ca else None
    personas = PersonasFile(settings.tenants_file, clock)
    breakers = Breakers("memory", rules_of=personas.breaker_rules, clock=clock, metrics=reports)
    reports.breaker_changed("memory", "dependency", "closed", "closed")  # shown before it ever changes
    wire = await stack.enter_async_context(MemoryWire(settings.brain_memory_target, credential, breakers, tls))
    embedder = build_embedder(
        settings.embedder,
        model=settings.embedder_model,
        base_url=settings.embedder_base_url,
        api_key=settings.embedder_api_key.get_secret_value(),
        dimensions=settings.embedder_dimensions,
        threads=settings.embedder_threads,
        cache_dir=settings.cache_dir,
    )
    await stack.enter_async_context(embedder)
    kept = SqliteOutbox(file)
    outbox = Outbox(kept, clock=clock, metrics=reports)
    await outbox.load()
    sender: Sender = GraphSender(MemorySender(MemoryGateway(wire)), GraphGateway(wire))
    if spans is not None:
        sender = TracedSender(sender, spans)
    delivery = await stack.enter_async_context(Delivery(outbox, sender, clock=clock, metrics=reports))
    reports.on_breaker_closed = delivery.wake
    model = None
    if settings.summariser_base_url:
        # Here, for the few brains that have one: its HTTP client takes a tenth of a brain's start.
        from brain_server.gateway.language_model import ChatModel

        key = settings.summariser_api_key.get_secret_value()
        model = ChatModel(settings.summariser_base_url, settings.summariser_model, api_key=key)
        await stack.enter_async_context(model)
    return _Parts(clock, metrics, reports, file, breakers, wire, kept, delivery, embedder, personas, model)


async def _wire(settings: BrainSettings, parts: _Parts) -> _Cases:
    """Make the use cases and bring working memory back."""
    clock, gateway = parts.clock, MemoryGateway(parts.wire)
    writes = OutboxWrites(parts.delivery.outbox, parts.delivery)
    vectors = TextVectors(parts.embedder)
    rules = WorkingRules(capacity=settings.wm_capacity)
    working = WorkingMemory(
        SqliteSessions(parts.file),
        rules=rules,
        clock=clock,
        metrics=parts.reports,
        mirror=MirroredSessions(parts.wire, parts.file.brain_id),
        most_sessions=settings.wm_sessions,
        most_bytes=settings.wm_bytes,
    )
    known = await working.start()
    _log.info("working memory comes back as it is touched", extra={"fields": {"sessions": known}})
    remembering = Remembering(writes.submit, writes, gateway, encoded, clock)
    return _Cases(
        remembering=remembering,
        reading=Reading(gateway, writes, clock),
        recalling=Recalling(gateway, writes, WorkingLeg(working, clock), vectors, clock, leg_metrics(parts.metrics)),
        working=working,
        observing=Observing(working, vectors),
        promoting=Promoting(working, remembering, writes, _linking(parts)),
        default_rules=rules,
    )


def _linking(parts: _Parts) -> Linking:
    delivery = parts.delivery
    pending = OutboxWrites(delivery.outbox, delivery)
    return Linking(OutboxChanges(delivery), pending, GraphGateway(parts.wire), encoded_change, parts.clock)


def _serve_links(server: grpc.aio.Server, parts: _Parts, cases: _Cases) -> None:
    linking = _linking(parts)
    graph = GraphServicer(linking, GraphGateway(parts.wire))
    graph_service_pb2_grpc.add_GraphServiceServicer_to_server(graph, server)
    assembling = Assembling(cases.recalling, linking, parts.clock, parts.model)
    context_service_pb2_grpc.add_ContextServiceServicer_to_server(ContextServicer(assembling, parts.personas), server)


def _serve_memories(server: grpc.aio.Server, parts: _Parts, cases: _Cases, drain: Drain) -> None:
    memory = MemoryServicer(cases.remembering, cases.reading, cases.recalling, MemoryGateway(parts.wire), drain)
    memory_service_pb2_grpc.add_MemoryServiceServicer_to_server(memory, server)
    working = WorkingMemoryServicer(
        cases.working,
        cases.observing,
        cases.promoting,
        Closing(cases.working, cases.promoting),
        drain,
        cases.default_rules,
    )
    working_memory_service_pb2_grpc.add_WorkingMemoryServiceServicer_to_server(working, server)
    pending = OutboxWrites(parts.delivery.outbox, parts.delivery)
    batching = Batching(pending, BatchGateway(parts.wire))
    BatchServicer(batching, cases.recalling, Passthrough(parts.wire, drain.started), drain).add_to(server)


def _health(parts: _Parts) -> Health:
    async def check_outbox() -> None:
        if parts.file.writer.broken is not None:
            raise OSError(parts.file.writer.broken)

    probe = MemoryProbe(parts.wire, parts.breakers, on_back=parts.delivery.wake)
    return Health([_Probe("outbox", check_outbox), probe], services=SERVICES)


def _operations(settings: BrainSettings, parts: _Parts, health: Health, drain: Drain, stop: StopRequest) -> Operations:
    name = f"{socket.gethostname()}/{new_memory_id()}"
    return Operations(
        server=ServerIdentity("brain", version("soma-memory"), name, parts.clock.now(), tuple(SERVICES)),
        health=health,
        drain=drain,
        clock=parts.clock,
        breakers=BreakerOperations(parts.breakers),
        outbox=DeliveryOperations(parts.delivery, parts.kept),
        memory=MemoryServerOperations(parts.wire),
        stop=stop.ask,
        notice_s=settings.notice_s,
        grace_s=settings.drain_s,
    )


@asynccontextmanager
async def _running(parts: _Parts, cases: _Cases) -> AsyncIterator[None]:
    """Run what is due every second until left; a defect in it ends the server instead of staying silent."""
    degradation = Degradation(BreakerOperations(parts.breakers), parts.reports, parts.clock)
    following = Following(cases.working, cases.reading, WatchedEndings(parts.wire))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(cases.working.run(cases.promoting.on_tick)),
            group.create_task(degradation.run()),
            group.create_task(following.run()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _tls(settings: BrainSettings) -> ServerTls | None:
    if settings.brain_tls_cert is None or settings.brain_tls_key is None:
        return None
    return ServerTls(settings.brain_tls_cert, settings.brain_tls_key)

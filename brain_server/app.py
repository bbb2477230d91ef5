"""The composition root: settings to a running brain server, every resource on one exit stack."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from brain_server.core.reading import Reading
from brain_server.core.recalling import Recalling
from brain_server.core.remembering import Remembering
from brain_server.gateway.breaker import Breakers
from brain_server.gateway.commands import encoded
from brain_server.gateway.delivery import Delivery
from brain_server.gateway.health import MemoryProbe
from brain_server.gateway.identity import BrainIdentity
from brain_server.gateway.memory import MemoryGateway
from brain_server.gateway.operations import BreakerOperations, DeliveryOperations, MemoryServerOperations
from brain_server.gateway.outbox import Outbox
from brain_server.gateway.pending import OutboxWrites
from brain_server.gateway.sending import MemorySender
from brain_server.gateway.wire import MemoryWire
from brain_server.ports import SystemClock
from brain_server.servicers.memory import MemoryServicer
from brain_server.servicers.operator import Operations, OperatorServicer
from brain_server.settings import BrainSettings
from brain_server.stores.sqlite.entries import SqliteOutbox
from brain_server.stores.sqlite.file import BrainFile
from brain_server.stores.sqlite.verdicts import SqliteVerdicts
from rpckit.channel import ChannelTls
from rpckit.health import ComponentState, Health
from rpckit.interceptors.admission import AdmissionLimits, Drain
from rpckit.interceptors.chain import call_chain
from rpckit.lifecycle import Served, Shutdown, StopRequest, serve
from rpckit.ops import OpsPort
from rpckit.server import ServerOptions, ServerTls, add_reflection, bind, new_server
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.metrics import PrometheusMetrics
from rpckit.unserved import served
from soma.admin.v1 import operator_service_pb2_grpc
from soma.memory.v1 import memory_service_pb2_grpc
from soma_contract.convert.operations import ServerIdentity
from soma_contract.ids import new_memory_id
from soma_contract.scopes import SCOPES, TENANTLESS

_log = logging.getLogger("soma.brain")

SERVICES: dict[str, tuple[str, ...]] = {
    "soma.memory.v1.MemoryService": ("outbox",),
    "soma.admin.v1.OperatorService": (),
}
"""What each service cannot do without: an outage of the memory server leaves the brain serving, degraded."""
_DRAIN_OUTBOX_S = 5.0
MEMORY_AWAITED_S = 5.0


@dataclass(frozen=True, slots=True)
class _Probe:
    """A health probe made of a name and a question."""

    name: str
    check: Callable[[], Coroutine[Any, Any, None]]


async def run(settings: BrainSettings, on_port: Callable[[int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``on_port`` is told the port when calls are taken."""
    stop = StopRequest()

    async def build(stack: AsyncExitStack) -> Served:
        return await _build(settings, stack, stop, on_port)

    await serve(build, Shutdown(grace_s=settings.drain_s), stop=stop, signals=True)


async def _build(
    settings: BrainSettings, stack: AsyncExitStack, stop: StopRequest, on_port: Callable[[int], None] | None
) -> Served:
    clock = SystemClock()
    file = await stack.enter_async_context(
        BrainFile(settings.data_dir, key_file=settings.outbox_key_file, brain_id=settings.brain_id)
    )
    credential = (await asyncio.to_thread(settings.service_credential_file.read_text)).strip()
    tls = ChannelTls(settings.brain_memory_ca) if settings.brain_memory_ca else None
    breakers = Breakers("memory", clock=clock)
    wire = await stack.enter_async_context(MemoryWire(settings.brain_memory_target, credential, breakers, tls))
    gateway = MemoryGateway(wire)
    kept = SqliteOutbox(file)
    outbox = Outbox(kept, clock=clock)
    await outbox.load()
    delivery = await stack.enter_async_context(Delivery(outbox, MemorySender(gateway), clock=clock))
    writes = OutboxWrites(outbox, delivery)
    identity = BrainIdentity(
        wire, SqliteVerdicts(file), clock, fresh_s=settings.verdict_fresh_s, outage_s=settings.verdict_outage_s
    )
    await identity.load()

    async def check_outbox() -> None:
        if file.writer.broken is not None:
            raise OSError(file.writer.broken)

    probe = MemoryProbe(wire, breakers, on_back=delivery.wake)
    health = await stack.enter_async_context(Health([_Probe("outbox", check_outbox), probe], services=SERVICES))
    drain = Drain()
    metrics = PrometheusMetrics()
    chain = call_chain(
        identity,
        drain=drain,
        telemetry=CallTelemetry(metrics),
        limits=AdmissionLimits(calls=settings.brain_max_calls, calls_per_tenant=settings.brain_max_calls_per_tenant),
        scopes=SCOPES,
        tenantless=TENANTLESS,
    )
    server = new_server(chain, ServerOptions())
    operations = Operations(
        server=ServerIdentity(
            "brain", version("soma-memory"), f"{socket.gethostname()}/{new_memory_id()}", clock.now(), tuple(SERVICES)
        ),
        health=health,
        drain=drain,
        clock=clock,
        breakers=BreakerOperations(breakers),
        outbox=DeliveryOperations(delivery, kept),
        memory=MemoryServerOperations(wire),
        stop=stop.request,
    )
    memory = MemoryServicer(
        Remembering(writes.submit, writes, gateway, encoded, clock),
        Reading(gateway, writes, clock),
        Recalling(gateway, writes, clock),
        gateway,
        drain,
    )
    memory_service_pb2_grpc.add_MemoryServiceServicer_to_server(memory, server)
    operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(served(OperatorServicer)(operations), server)
    health.add_to(server)
    if settings.brain_reflection:
        add_reflection(server, SERVICES)
    if settings.brain_ops_address:
        host, _, ops_port = settings.brain_ops_address.rpartition(":")
        ops = OpsPort(host, int(ops_port), is_ready=lambda: health.is_ready, metrics=metrics.exposition)
        await stack.enter_async_context(ops)
    port = bind(server, settings.brain_address, _tls(settings))
    await health.wait_ready()
    await _memory_awaited(health)

    def started() -> None:
        _log.info("brain takes calls", extra={"fields": {"port": port, "brain": file.brain_id}})
        if on_port is not None:
            on_port(port)

    async def flush() -> None:
        await delivery.drain(_DRAIN_OUTBOX_S)

    return Served(server, drain, health, flushes=(flush,), on_started=started)


async def _memory_awaited(health: Health) -> None:
    """Give a memory server that starts at the same time a moment; a brain serves without one as well."""
    with suppress(TimeoutError):
        async with asyncio.timeout(MEMORY_AWAITED_S):
            while not any(
                report.name == MemoryProbe.name and report.state is ComponentState.HEALTHY
                for report in await health.refresh()
            ):
                await asyncio.sleep(0.05)  # noqa: ASYNC110 - components are asked, they do not tell


def _tls(settings: BrainSettings) -> ServerTls | None:
    if settings.brain_tls_cert is None or settings.brain_tls_key is None:
        return None
    return ServerTls(settings.brain_tls_cert, settings.brain_tls_key)

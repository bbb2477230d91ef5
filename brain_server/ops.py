"""The brain's ops port: liveness, readiness, and what Prometheus reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from brain_server.ports.operators import OutboxOperations
from rpckit.health import Health
from rpckit.ops import OpsPort
from rpckit.telemetry.gauges import Scrape, watched
from rpckit.telemetry.metrics import PrometheusMetrics
from rpckit.telemetry.stages import StageMetrics
from soma_contract.recall import Summary


def leg_metrics(metrics: PrometheusMetrics) -> Callable[[Summary], None]:
    """What is to be called at the end of each recall."""
    legs = StageMetrics(metrics, "sfm_recall_leg", "leg")
    return lambda summary: legs.ended((leg.leg.value, leg.state.value, leg.duration_s) for leg in summary.legs)


@asynccontextmanager
async def ops_port(
    address: str, metrics: PrometheusMetrics, health: Health, outbox: OutboxOperations
) -> AsyncIterator[None]:
    """Serve the ops port at ``host:port``; an empty address serves nothing and measures nothing."""
    if not address:
        yield
        return
    oldest = metrics.gauge("outbox_oldest_seconds", "How long the oldest pending write has waited.").labels()
    deep = metrics.gauge(
        "outbox_tenants_over_warning", "Tenants of whom 10,000 writes or more wait for the memory server."
    ).labels()
    free = metrics.gauge("outbox_disk_free_bytes", "What the outbox's disk has left.").labels()

    def look_at_outbox() -> None:
        told = outbox.told(None)
        oldest.set((datetime.now(UTC) - told.oldest_at).total_seconds() if told.oldest_at else 0.0)
        deep.set(told.tenants_over_warning)
        free.set(told.disk_free_bytes)

    host, _, port = address.rpartition(":")
    scrape = Scrape(metrics, health, look_at_outbox)
    async with watched(metrics), OpsPort(host, int(port), is_ready=lambda: health.is_ready, metrics=scrape):
        yield

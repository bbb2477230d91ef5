"""The memory server's ops port: liveness, readiness, and what Prometheus reads about stores and index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from memory_server.ports import IndexQueue
from memory_server.stores.postgres.pools import Pools
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
    address: str, metrics: PrometheusMetrics, health: Health, pools: Pools, queue: IndexQueue
) -> AsyncIterator[None]:
    """Serve the ops port at ``host:port``; an empty address serves nothing and measures nothing."""
    if not address:
        yield
        return
    pending = metrics.gauge("sfm_index_pending_rows", "Rows the index does not hold as they are now.").labels()
    oldest = metrics.gauge("sfm_index_lag_seconds", "How long the oldest of them has waited.").labels()
    poisoned = metrics.gauge("sfm_index_poisoned_rows", "Rows the index keeps refusing.").labels()
    connections = metrics.gauge(
        "sfm_postgres_connections",
        "Connections by purpose: in use, idle, and how many there may be.",
        ("pool", "state"),
    )

    async def look_at_index() -> None:
        lag = await queue.lag(None)
        pending.set(lag.rows)
        oldest.set(lag.oldest_s)
        poisoned.set(lag.poisoned)

    def look_at_pools() -> None:
        for name in ("interactive", "indexing", "bulk"):
            pool = getattr(pools, name).pool
            idle, size = pool.get_idle_size(), pool.get_size()
            connections.labels(name, "used").set(size - idle)
            connections.labels(name, "idle").set(idle)
            connections.labels(name, "limit").set(pool.get_max_size())

    host, _, port = address.rpartition(":")
    scrape = Scrape(metrics, health, look_at_pools)
    async with (
        watched(metrics, [look_at_index]),
        OpsPort(host, int(port), is_ready=lambda: health.is_ready, metrics=scrape),
    ):
        yield

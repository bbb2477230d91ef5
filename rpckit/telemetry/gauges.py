"""What is measured by looking rather than by counting: the loop's lag, components, and whatever a server adds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

from rpckit.health import ComponentState, Health
from rpckit.telemetry.metrics import PrometheusMetrics

_LAG_EVERY_S = 0.25
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Scrape:
    """The exposition text, after everything that is measured by looking has been looked at."""

    def __init__(self, metrics: PrometheusMetrics, health: Health, *looks: Callable[[], None]) -> None:
        self._metrics = metrics
        self._health = health
        self._looks = looks
        self._components = metrics.gauge(
            "sfm_component_state", "1 for the state a component is in, 0 for the others.", ("component", "state")
        )
        ProcessCollector(registry=metrics.registry)
        PlatformCollector(registry=metrics.registry)
        GCCollector(registry=metrics.registry)

    def __call__(self) -> bytes:
        """The text Prometheus reads."""
        for report in self._health.components():
            for state in ComponentState:
                self._components.labels(report.name, state.value).set(float(report.state is state))
        for look in self._looks:
            look()
        return self._metrics.exposition()


@asynccontextmanager
async def watched(
    metrics: PrometheusMetrics, looks: Sequence[Callable[[], Awaitable[None]]] = (), *, every_s: float = 5.0
) -> AsyncIterator[None]:
    """Measure the loop's lag, and take the ``looks`` that have to wait for something, until left.

    A look that fails is taken again later: what cannot be asked now has its own alarm.
    """
    lags = metrics.histogram(
        "sfm_loop_lag_seconds", "How much later than asked the event loop came back.", buckets=_LAGS
    ).labels()
    failures = metrics.counter("sfm_look_failures_total", "Measurements that could not be taken.").labels()
    loop = asyncio.get_running_loop()

    async def lag() -> None:
        while True:
            asked = loop.time()
            await asyncio.sleep(_LAG_EVERY_S)
            lags.observe(max(0.0, loop.time() - asked - _LAG_EVERY_S))

    async def look_around() -> None:
        while True:
            for look in looks:
                try:
                    await look()
                except Exception:  # noqa: BLE001 - a metric must not end a server
                    failures.inc()
            await asyncio.sleep(every_s)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lag()), group.create_task(look_around())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

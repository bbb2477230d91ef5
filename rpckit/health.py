"""Health by probing: what each component answered lately, and what that means for each service.

Every probe runs by itself, again and again, and is bounded, so a hanging store never delays the answer about another.
The empty service name means only that the process is up: liveness must not depend on stores.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_log = logging.getLogger("soma.health")

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Probe(Protocol):
    """Asks one component whether it works."""

    @property
    def name(self) -> str:
        """The component, ``postgres``."""

    async def check(self) -> None:
        """Returns if the component works, raises what is wrong if not. May be cancelled at any time."""


class ComponentState(Enum):
    """How a component is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It answers, slowly."""
    DOWN = "down"
    UNKNOWN = "unknown"
    """It has not answered in time, or was never asked."""


@dataclass(frozen=True, slots=True)
class ComponentReport:
    """What is known of a component."""

    name: str
    state: ComponentState
    latency_s: float | None
    """Of the last answer."""
    since: datetime
    """When it came into this state."""
    last_error: str = ""
    """Kept after it has recovered."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How probes are run."""

    interval_s: float = 2.0
    timeout_s: float = 1.0
    """Less than the 2 s in which an operator is answered, on a memory server as on the brain that asks it."""
    slow_s: float = 0.5
    """An answer that takes longer makes the component DEGRADED."""


class Health:
    """Runs the probes while entered, and serves ``grpc.health.v1`` from what they say."""

    def __init__(
        self,
        probes: Sequence[Probe] = (),
        *,
        services: Mapping[str, Sequence[str]] | None = None,
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``services`` maps each full service name to the components it cannot do without."""
        self._probes = {probe.name: probe for probe in probes}
        self._services = {name: tuple(needs) for name, needs in (services or {}).items()}
        self._pace = pace or Pace()
        self._now = now
        self._reports = {name: ComponentReport(name, ComponentState.UNKNOWN, None, now()) for name in self._probes}
        self._servicer = health.aio.HealthServicer()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve ``grpc.health.v1.Health`` on this server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def components(self) -> tuple[ComponentReport, ...]:
        """The last word on each component; never waits for one."""
        return tuple(self._reports.values())

    @property
    def is_ready(self) -> bool:
        """Whether all services have what they need, and the server is not going down."""
        return not self._stopping and all(self._serves(service) for service in self._services)

    async def wait_ready(self) -> None:
        """Wait until all services have what they need for the first time."""
        await self._ready.wait()

    async def stop_serving(self) -> None:
        """Say NOT_SERVING for everything, for good: the server is going down."""
        self._stopping = True
        await self._servicer.enter_graceful_shutdown()

    async def refresh(self) -> tuple[ComponentReport, ...]:
        """Ask every component now; takes as long as the slowest, at most ``timeout_s``.

        Who asks a component that is being asked shares the answer: a probe has one connection, and one that hangs
        must not make a second one wait for it.
        """
        async with asyncio.TaskGroup() as group:
            for probe in self._probes.values():
                group.create_task(self._asked(probe))
        return self.components()

    async def _asked(self, probe: Probe) -> None:
        task = self._asking.get(probe.name)
        if task is None and self._tasks is not None:
            task = self._asking[probe.name] = self._tasks.create_task(self._ask(probe))
            task.add_done_callback(lambda done: self._asking.pop(probe.name, None))
        if task is not None:
            await asyncio.wait({task})

    async def __aenter__(self) -> Self:
        for service in self._services:
            await self._servicer.set(service, _NOT_SERVING)
        await self._publish()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._running = [self._tasks.create_task(self._watch(probe)) for probe in self._probes.values()]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in (*self._running, *self._asking.values()):
            task.cancel()
        if self._tasks is not None:
            # Without the exception: a group would wrap what went wrong elsewhere into one of its own.
            await self._tasks.__aexit__(None, None, None)
            self._tasks = None

    async def _watch(self, probe: Probe) -> None:
        while True:
            await self._asked(probe)
            await asyncio.sleep(self._pace.interval_s)

    async def _ask(self, probe: Probe) -> None:
        started = time.perf_counter()
        limit = asyncio.timeout(self._pace.timeout_s)
        try:
            async with limit:
                await probe.check()
        except Exception as failure:  # noqa: BLE001 - whatever a driver raises means: down
            if limit.expired():
                await self._record(probe.name, ComponentState.UNKNOWN, None, f"no answer in {self._pace.timeout_s:g} s")
            else:
                await self._record(probe.name, ComponentState.DOWN, time.perf_counter() - started, _told(failure))
        else:
            latency_s = time.perf_counter() - started
            state = ComponentState.DEGRADED if latency_s > self._pace.slow_s else ComponentState.HEALTHY
            await self._record(probe.name, state, latency_s, "")

    async def _record(self, name: str, state: ComponentState, latency_s: float | None, error: str) -> None:
        before = self._reports[name]
        if latency_s is None:
            latency_s = before.latency_s
        report = replace(before, state=state, latency_s=latency_s, last_error=error or before.last_error)
        if state is not before.state:
            report = replace(report, since=self._now())
            level = logging.INFO if state is ComponentState.HEALTHY else logging.WARNING
            _log.log(level, "%s is %s", name, state.value, extra={"fields": {"component": name, "error": error}})
        self._reports[name] = report
        await self._publish()

    async def _publish(self) -> None:
        for service in self._services:
            await self._servicer.set(service, _SERVING if self._serves(service) else _NOT_SERVING)
        if self.is_ready:
            self._ready.set()

    def _serves(self, service: str) -> bool:
        working = (ComponentState.HEALTHY, ComponentState.DEGRADED)
        return all(self._reports[name].state in working for name in self._services[service])


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]

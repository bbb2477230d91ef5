"""grpc.health.v1 from probes, behind the whole chain with telemetry on."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from rpckit.health import ComponentState, Health, Pace
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.metrics import PrometheusMetrics
from rpckit.telemetry.tracing import Spans
from tests.servicers.rpckit.kit import stand

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FAST = Pace(interval_s=0.02, timeout_s=0.1, slow_s=0.05)
MEMORY, GRAPH = "soma.memory.v1.MemoryService", "soma.graph.v1.GraphService"


class Store:
    """A component that can be told to break or to hang."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: Exception | None = None
        self.hangs = False

    async def check(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def watched(*stores: Store, **needs: Any) -> AsyncIterator[tuple[Health, Any]]:
    services = {MEMORY: ["postgres"], GRAPH: [store.name for store in stores]}
    async with Health(stores, services=services, pace=FAST) as health:
        telemetry = CallTelemetry(PrometheusMetrics(), spans=Spans(TracerProvider()))
        async with stand({}, prepare=health.add_to, telemetry=telemetry) as on:
            yield health, health_pb2_grpc.HealthStub(on.channel)


def asked(service: str) -> Any:
    return health_pb2.HealthCheckRequest(service=service)


async def until(health: Health, name: str, state: ComponentState) -> None:
    async with asyncio.timeout(5):
        while {each.name: each.state for each in health.components()}[name] is not state:  # noqa: ASYNC110 - probes run at their own pace
            await asyncio.sleep(0.005)


async def test_watch_follows_a_component_down_and_up_with_telemetry_on(caplog: pytest.LogCaptureFixture) -> None:
    postgres, milvus = Store("postgres"), Store("milvus")
    with caplog.at_level(logging.WARNING):
        async with watched(postgres, milvus) as (health, stub), asyncio.timeout(5):
            await health.wait_ready()
            stream = stub.Watch(asked(GRAPH))
            seen = [(await stream.read()).status]
            milvus.error = ConnectionError("refused")
            seen.append((await stream.read()).status)
            assert (await stub.Check(asked(MEMORY))).status == SERVING
            assert (await stub.Check(asked(""))).status == SERVING
            milvus.error = None
            seen.append((await stream.read()).status)
            stream.cancel()
    assert seen == [SERVING, NOT_SERVING, SERVING]
    assert not [record for record in caplog.records if record.name == "soma.errors"]


async def test_a_hanging_component_is_unknown_in_time_and_does_not_delay_another() -> None:
    postgres, milvus = Store("postgres"), Store("milvus")
    milvus.hangs = True
    async with watched(postgres, milvus) as (health, stub):
        await until(health, "milvus", ComponentState.UNKNOWN)
        await until(health, "postgres", ComponentState.HEALTHY)
        async with asyncio.timeout(0.5):
            reports = {report.name: report for report in await health.refresh()}
        assert reports["milvus"].last_error == "no answer in 0.1 s"
        assert reports["milvus"].latency_s is None
        assert reports["postgres"].latency_s is not None
        assert (await stub.Check(asked(MEMORY))).status == SERVING
        assert (await stub.Check(asked(GRAPH))).status == NOT_SERVING


async def test_a_report_tells_since_when_and_keeps_the_last_error() -> None:
    postgres = Store("postgres")
    async with watched(postgres) as (health, _):
        await until(health, "postgres", ComponentState.HEALTHY)
        healthy_since = health.components()[0].since
        postgres.error = ConnectionError("no route to host")
        await until(health, "postgres", ComponentState.DOWN)
        down = health.components()[0]
        assert down.since > healthy_since
        assert down.last_error == "ConnectionError: no route to host"
        postgres.error = None
        await until(health, "postgres", ComponentState.HEALTHY)
        assert health.components()[0].last_error == "ConnectionError: no route to host"


async def test_a_slow_component_is_degraded_and_still_serves() -> None:
    class Slow(Store):
        async def check(self) -> None:
            await asyncio.sleep(0.06)

    async with watched(Slow("postgres")) as (health, stub):
        await until(health, "postgres", ComponentState.DEGRADED)
        assert (await stub.Check(asked(MEMORY))).status == SERVING


async def test_before_anything_was_asked_nothing_serves_but_the_process_is_up() -> None:
    postgres = Store("postgres")
    postgres.hangs = True
    async with watched(postgres) as (health, stub):
        assert not health.is_ready
        assert (await stub.Check(asked(MEMORY))).status == NOT_SERVING
        assert (await stub.Check(asked(""))).status == SERVING


async def test_a_service_that_is_not_served_is_not_advertised() -> None:
    async with watched(Store("postgres")) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(asked("soma.batch.v1.BatchService"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_once_it_stops_serving_no_recovery_turns_it_back() -> None:
    postgres = Store("postgres")
    async with watched(postgres) as (health, stub):
        await health.wait_ready()
        before = health.is_ready
        await health.stop_serving()
        assert (True, False) == (before, health.is_ready), "who asks the ops port learns it too"
        await health.refresh()
        assert (await stub.Check(asked(MEMORY))).status == NOT_SERVING
        assert (await stub.Check(asked(""))).status == NOT_SERVING

"""What Prometheus reads on the ops ports of both servers, after real calls."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.seen.conftest import Scene

pytestmark = pytest.mark.processes

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def page(scene: Scene, server: str, path: str = "/metrics") -> str:
    """One page of an ops port."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{scene.ops[server]}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


def values(text: str) -> Values:
    """Every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Values, name: str, **labels: str) -> float:
    """One sample; KeyError that names it if it is not there."""
    return found[name, frozenset(labels.items())]


async def eventually(scene: Scene, server: str, holds: Callable[[Values], bool]) -> Values:
    """The samples as soon as they hold: a call's books are closed just after its answer."""
    async with asyncio.timeout(20):
        while not holds(found := values(await page(scene, server))):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def used(scene: Scene) -> SimpleNamespace:
    """A tenant that has remembered and recalled once."""
    agent = await scene.office.agent()
    await agent.remember("Ada prefers tea")
    await agent.recall("tea")
    return SimpleNamespace(tenant=agent.tenant)


@pytest.mark.parametrize("server", ["brain", "memory"])
async def test_calls_legs_components_and_the_loop_are_told(scene: Scene, used: SimpleNamespace, server: str) -> None:
    def holds(found: Values) -> bool:
        recalls = "MemoryService/Recall"
        labels = frozenset({("operation", recalls), ("status", "OK")})
        # The loop is measured from time to time, and a server that has just started may not have been yet.
        return ("sfm_request_total", labels) in found and value(found, "sfm_loop_lag_seconds_count") >= 1

    found = await eventually(scene, server, holds)
    assert value(found, "sfm_request_total", operation="MemoryService/Remember", status="OK") >= 1
    assert value(found, "sfm_request_duration_seconds_count", operation="MemoryService/Recall") >= 1
    assert value(found, "sfm_recall_leg_total", leg="overlay", state="ran") >= 1
    assert value(found, "sfm_recall_leg_seconds_count", leg="overlay") >= 1
    component = "postgres" if server == "memory" else "outbox"
    assert 1 == value(found, "sfm_component_state", component=component, state="healthy")
    assert 0 == value(found, "sfm_component_state", component=component, state="down")


async def test_the_memory_server_tells_of_its_index_and_its_connections(scene: Scene, used: SimpleNamespace) -> None:
    found = await eventually(scene, "memory", lambda found: ("sfm_index_pending_rows", frozenset()) in found)
    assert value(found, "sfm_index_lag_seconds") >= 0
    assert 0 == value(found, "sfm_index_poisoned_rows")
    assert value(found, "sfm_postgres_connections", pool="interactive", state="limit") >= 1


async def test_the_brain_tells_of_its_outbox_its_breaker_and_working_memory(
    scene: Scene, used: SimpleNamespace
) -> None:
    found = values(await page(scene, "brain"))
    assert 0 == value(found, "outbox_pending_total")
    assert 0 == value(found, "outbox_oldest_seconds")
    assert 0 == value(found, "outbox_tenants_over_warning")
    assert 0 == value(found, "circuit_breaker_state", component="memory")
    families = {family.name for family in text_string_to_metric_families(await page(scene, "brain"))}
    assert {"wm_promotion", "outbox_delivery_seconds"} <= families


@pytest.mark.parametrize("server", ["brain", "memory"])
async def test_no_metric_names_a_tenant(scene: Scene, used: SimpleNamespace, server: str) -> None:
    text = await page(scene, server)
    assert "tenant" not in {name for _, labels in values(text) for name, _ in labels}
    assert used.tenant not in text


@pytest.mark.parametrize("server", ["brain", "memory"])
async def test_liveness_and_readiness_answer(scene: Scene, server: str) -> None:
    assert "alive\n" == await page(scene, server, "/livez")
    assert "ready\n" == await page(scene, server, "/readyz")

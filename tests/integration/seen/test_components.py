"""GetComponents answers within two seconds and names what is wrong, whatever else is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from soma.admin.v1 import operator_service_pb2 as pb
from soma_embedded import EmbeddedStores
from tests.support.fault_proxy import Fault
from tests.support.proxied import Proxied, proxied_servers
from tests.support.stack import Agent
from tests.support.stores import FreshDatabase

pytestmark = [pytest.mark.processes, pytest.mark.stores]

WITHIN_S = 2.0
STORES = ("postgres", "milvus", "redis")
States = dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(stores: EmbeddedStores) -> AsyncIterator[tuple[Proxied, str]]:
    """Both servers, and the database's address as its owner."""
    database = FreshDatabase("components", *await stores.create_database("components"))
    async with proxied_servers(stores, database, settings={"SOMA_POOL_INTERACTIVE": "4"}) as running:
        yield running, database.admin_url
    await stores.drop_database("components")


async def asked(agent: Agent) -> tuple[States, float]:
    """State by component, and how long the answer took."""
    began = time.monotonic()
    answer = await agent.operator.GetComponents(pb.GetComponentsRequest(), metadata=agent.metadata, timeout=10)
    took_s = time.monotonic() - began
    names = {
        each.name: pb.ComponentState.Name(each.state).removeprefix("COMPONENT_STATE_") for each in answer.components
    }
    return names, took_s


async def until(agent: Agent, holds: Callable[[States], bool]) -> None:
    """Return when the states hold: a recovered store is found by the next probe."""
    async with asyncio.timeout(30):
        while not holds((await asked(agent))[0]):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


@asynccontextmanager
async def faulty(servers: Proxied, name: str, fault: Fault) -> AsyncIterator[None]:
    """A fault for as long as the block runs, and until everything has recovered from it."""
    servers.proxies[name].fault = fault
    try:
        yield
    finally:
        servers.proxies[name].fault = Fault.PASS
        await until(servers.brain, lambda states: set(states.values()) <= {"HEALTHY", "DEGRADED"})


async def test_all_is_well_and_the_brain_tells_of_the_memory_servers_stores_too(servers: tuple[Proxied, str]) -> None:
    running, _ = servers
    own, _ = await asked(running.memory)
    through, _ = await asked(running.brain)
    assert set(STORES) == own.keys()
    assert {"outbox", "memory", *(f"memory/{store}" for store in STORES)} == through.keys()


async def test_a_store_that_is_cut_off_or_silent_is_named_in_time_by_both_servers(servers: tuple[Proxied, str]) -> None:
    running, _ = servers
    told = []
    for store in STORES:
        for fault in (Fault.CUT, Fault.BLACK_HOLE):
            async with faulty(running, store, fault):
                for agent, name in ((running.memory, store), (running.brain, f"memory/{store}")):
                    states, took_s = await asked(agent)
                    others = {each for each in states if each not in (name, "memory")}
                    well = {states[each] for each in others} <= {"HEALTHY", "DEGRADED"}
                    told.append((name, fault.value, states[name] in ("DOWN", "UNKNOWN"), took_s < WITHIN_S, well))
    assert [line for line in told if line[2:] != (True, True, True)] == [], told


async def test_a_memory_server_that_is_cut_off_or_silent_is_named_in_time(servers: tuple[Proxied, str]) -> None:
    running, _ = servers
    for fault in (Fault.CUT, Fault.BLACK_HOLE):
        async with faulty(running, "memory", fault):
            states, took_s = await asked(running.brain)
            assert (states["memory"], states["outbox"]) in (("DOWN", "HEALTHY"), ("UNKNOWN", "HEALTHY"))
            assert took_s < WITHIN_S, fault


async def test_components_answer_while_every_connection_is_taken(servers: tuple[Proxied, str]) -> None:
    running, admin_url = servers
    stored = await running.memory.remember("Ada prefers tea")
    async with AsyncExitStack() as stack:
        owner: asyncpg.Connection = await asyncpg.connect(admin_url)
        stack.push_async_callback(owner.close)
        lock = owner.transaction()
        await lock.start()
        # Whoever reads memories now waits, and holds a connection of the pool while it does.
        await owner.execute("LOCK TABLE memory_items IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.ensure_future(running.memory.get(stored.memory.memory_id)) for _ in range(12)]
        await _until_locked_out(owner, 4)
        ends = time.monotonic() + 6.0  # verdicts on keys are fresh for 5 s: all have to be asked for anew meanwhile
        while time.monotonic() < ends:
            for agent, postgres in ((running.memory, "postgres"), (running.brain, "memory/postgres")):
                states, took_s = await asked(agent)
                assert took_s < WITHIN_S
                assert "HEALTHY" == states[postgres]
            await asyncio.sleep(0.25)
        await lock.rollback()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [] == [each for each in answers if isinstance(each, Exception) and not isinstance(each, grpc.RpcError)]


async def _until_locked_out(owner: asyncpg.Connection, count: int) -> None:
    """Return when so many sessions wait for a lock."""
    async with asyncio.timeout(20):
        while await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_liveness_does_not_depend_on_stores(servers: tuple[Proxied, str]) -> None:
    running, _ = servers
    port = running.proxies["memory"]
    async with faulty(running, "postgres", Fault.BLACK_HOLE):
        async with grpc.aio.insecure_channel(f"{port.host}:{port.port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=WITHIN_S)
        assert health_pb2.HealthCheckResponse.SERVING == answer.status

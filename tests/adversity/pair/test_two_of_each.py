"""Two brains and two memory servers behind the real Envoy: sessions stick and move, leases move, nothing is lost.

SOMA_TEST_PAIR_SECONDS sets how long the load runs while servers die; SOMA_TEST_PAIR_SEED who dies when.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc
import pytest
import pytest_asyncio

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.common.v1 import types_pb2 as types
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as memory
from soma_embedded.child import Child
from tests.integration.brain.agents import Mind
from tests.support.envoy import envoy_before
from tests.support.pair import Pair, two_of_each
from tests.support.stack import Agent
from tests.support.stores import data_directory

pytestmark = pytest.mark.processes

SECONDS = float(os.environ.get("SOMA_TEST_PAIR_SECONDS", "8"))
SEED = int(os.environ.get("SOMA_TEST_PAIR_SEED", "8"))
WRITERS = 8
RETRIABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
Answer = TypeVar("Answer")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair() -> AsyncIterator[Pair]:
    async with two_of_each(SOMA_INDEX_LEASE_S="2") as running:
        yield running


async def until_answered(call: Callable[[], Awaitable[Answer]], seen: Counter[str] | None = None) -> Answer:
    """Call as a client does: again after what may be tried again; anything else is raised."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as failed:
                if seen is not None:
                    seen[failed.code().name] += 1
                if failed.code() not in RETRIABLE:
                    raise
            await asyncio.sleep(0.02)


def called(agent: Agent, session: str) -> list[tuple[str, str]]:
    return [*agent.metadata, ("soma-session", session)]


async def test_a_session_stays_with_its_brain_and_sessions_use_both(pair: Pair) -> None:
    async with pair.channel() as first, pair.channel() as second:
        agent = await pair.agent(first, "sticky")
        homes = {}
        for number in range(16):
            metadata = called(agent, f"s{number}")
            seen = {await pair.instance(channel, metadata) for channel in (first, second, first)}
            assert 1 == len(seen), "whatever connection a session's calls come by, one brain answers them"
            homes[number] = seen.pop()
        assert set(await pair.names(agent.metadata)) == set(homes.values())


async def test_without_hashing_a_sessions_calls_would_meet_both_brains(pair: Pair) -> None:
    brains, memories = ([pair.addresses[f"{kind}-{number}"] for number in (1, 2)] for kind in ("brain", "memory"))
    with data_directory() as path:
        async with (
            envoy_before(brains, memories, path, hashing=False) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            agent = await pair.agent(channel, "unstuck")
            seen: set[str] = set()
            async with asyncio.timeout(20):
                while len(seen) < 2:
                    seen.add(await pair.instance(channel, called(agent, "s")))


async def test_a_session_moves_with_its_items_when_its_brain_drains_and_comes_back(pair: Pair) -> None:
    async with pair.channel() as channel:
        agent = await pair.agent(channel, "moving")
        mind = Mind(channel, agent, "thinking")
        metadata = called(agent, "thinking")
        texts = [f"thought number {number} about something else {number * 7919}" for number in range(12)]
        await mind.observe(*texts)
        before = [item.item_id for item in await mind.items()]
        home = await pair.instance(channel, metadata)
        name = (await pair.names(agent.metadata))[home]
        await pair.children[name].stop()
        try:
            moved = await until_answered(lambda: pair.instance(channel, metadata))
            assert home != moved
            assert before == [item.item_id for item in await until_answered(mind.items)]
            await mind.observe("thought on the other brain, of another kind altogether")
        finally:
            await pair.children[name].start()
        async with asyncio.timeout(30):
            while moved == await until_answered(lambda: pair.instance(channel, metadata)):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.1)
        returned = [item.item_id for item in await until_answered(mind.items)]
        assert set(before) < set(returned)
        assert len(before) + 1 == len(returned)


async def test_index_jobs_of_a_dead_memory_server_are_taken_over(pair: Pair) -> None:
    async with pair.channel() as channel:
        agent = await pair.agent(channel, "leases")
        victim = pair.children["memory-1"]
        for number in range(40):
            await agent.remember(f"line {number} of what is indexed")
        await victim.kill(signal.SIGKILL)
        await victim.stop()  # nobody starts it again
        try:
            await agent.remember("one more line while there is only one memory server")
            async with pair.channel("memory-2") as other, asyncio.timeout(60):
                operator = operator_rpc.OperatorServiceStub(other)
                request = operator_pb.GetIndexStatusRequest(tenant="leases")
                while (await operator.GetIndexStatus(request, metadata=pair.admin, timeout=20)).pending_rows:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            await victim.start()


async def die(child: Child, chosen: random.Random, deaths: Counter[str]) -> None:
    """End a server, in good order or not, and wait for its successor."""
    number = chosen.choice((signal.SIGKILL, signal.SIGTERM))
    deaths[f"{number.name} of a {child.name.partition('-')[0]}"] += 1
    process = child.pid
    await child.kill(number)
    while child.pid == process:  # noqa: ASYNC110 - a process that drains
        await asyncio.sleep(0.02)
    await child.ready()


async def test_nothing_acknowledged_is_lost_while_one_of_each_dies_again_and_again(pair: Pair) -> None:
    chosen, deaths, errors = random.Random(SEED), Counter[str](), Counter[str]()
    acknowledged: dict[str, str] = {}
    durabilities: Counter[str] = Counter()
    over = asyncio.Event()
    async with pair.channel() as channel:
        agents = [await pair.agent(channel, f"load-{number}") for number in range(4)]

        async def write(writer: int) -> None:
            agent, number = agents[writer % len(agents)], 0
            async with pair.channel() as own:
                stub = Agent(own, "").memory
                metadata = called(agent, f"w{writer}")
                while not over.is_set():
                    text = f"writer {writer} wrote line {number}"
                    request = memory.RememberRequest(
                        memory=memory_pb2.Memory(text=text), request_id=f"{writer}-{number}"
                    )
                    answer = await until_answered(
                        lambda request=request: stub.Remember(request, metadata=metadata, timeout=5),  # type: ignore[misc]
                        errors,
                    )
                    acknowledged[text] = answer.memory.memory_id
                    durabilities[types.Durability.Name(answer.durability)] += 1
                    number += 1

        async def strike(kind: str) -> None:
            while not over.is_set():
                await die(pair.children[f"{kind}-{chosen.choice((1, 2))}"], chosen, deaths)
                await asyncio.sleep(chosen.uniform(0.2, 1.5))

        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(write(writer))
            for kind in ("brain", "memory"):
                group.create_task(strike(kind))
            await asyncio.sleep(SECONDS)
            over.set()

        for child in pair.children.values():
            await child.ready()
        await pair.delivered()
        kept: dict[str, str] = {}
        for agent in agents:
            token = ""
            while True:
                page = await until_answered(
                    lambda agent=agent, token=token: agent.memory.List(  # type: ignore[misc]
                        memory.ListRequest(page_size=1000, page_token=token), metadata=agent.metadata, timeout=20
                    )
                )
                for one in page.memories:
                    assert one.text not in kept, f"{one.text!r} is there twice"
                    kept[one.text] = one.memory_id
                token = page.next_page_token
                if not token:
                    break
    print(
        f"{len(acknowledged)} acknowledged in {SECONDS:g} s, durability {dict(durabilities)}, deaths {dict(deaths)}, "
        f"errors {dict(errors)}"
    )
    assert {} == {text: found for text, found in acknowledged.items() if kept.get(text) != found}
    assert len(deaths) >= 2 or SECONDS < 5
    assert len(acknowledged) > 10 * SECONDS

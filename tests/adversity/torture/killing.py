"""Processes die at random while agents of many tenants write; afterwards everything acknowledged is there, once."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from dataclasses import dataclass

import grpc

from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from tests.adversity.torture.agents import Agent, living, named, settled_agents
from tests.adversity.torture.history import History
from tests.adversity.torture.nemesis import Nemesis
from tests.adversity.torture.parts import Part
from tests.adversity.torture.scene import AWAY, PROCESSES, Scene, now
from tests.adversity.torture.truth import read_truth
from tests.adversity.torture.verdicts import Verdict, registers, verdicts_of

FREEZE_EVERY = 4
"""Every so many kills, a process is frozen for a moment as well."""


@dataclass(frozen=True, slots=True)
class Killing:
    """How big a run is."""

    acknowledged: int
    kills: int
    tenants: int
    at_once: int = 16


async def kill_while_writing(scene: Scene, size: Killing, seed: int) -> Part:
    """Kill and freeze processes in turn until enough was acknowledged and enough has died."""
    chosen = random.Random(seed)
    history, nemesis = History(), Nemesis(scene, random.Random(chosen.getrandbits(64)))
    agents = await settled_in(scene, history, chosen, size.tenants, size.at_once)
    began, dead = now(), Counter[str]()
    async with living(agents):
        for number, victim in enumerate(nemesis.victims(size.kills), start=1):
            await _reached(history, size.acknowledged * number // (size.kills + 1))
            while history.in_flight == 0:  # noqa: ASYNC110 - some agent is about to call
                await asyncio.sleep(0)
            await nemesis.kill(victim, history.in_flight)
            dead[victim] += 1
            if number % FREEZE_EVERY == 0:
                await nemesis.freeze(chosen.choice(PROCESSES), chosen.uniform(0.2, 1.5))
        await _reached(history, size.acknowledged)
    took_s = now() - began
    verdicts = await judged(scene, history, agents)
    facts = {
        "acknowledged writes": f"{history.acknowledged:,}",
        "of them queued by the brain": f"{history.counts['queued']:,}",
        "calls judged": f"{len(history.calls):,}",
        "kills, effective": f"{nemesis.kills}, {nemesis.effective}",
        "killed": ", ".join(f"{name} {count}" for name, count in sorted(dead.items())),
        "freezes": f"{nemesis.freezes}",
        "writes a second, deaths included": f"{history.acknowledged / took_s:.0f}",
        **back_after(nemesis),
    }
    enough = history.acknowledged >= size.acknowledged and nemesis.effective >= size.kills
    told = f"{history.acknowledged} acknowledged, {nemesis.effective} kills that met a call"
    return Part(
        "killed while writing", [*verdicts, Verdict("the run was as hard as it had to be", enough, told)], facts
    )


async def settled_in(scene: Scene, history: History, chosen: random.Random, tenants: int, at_once: int) -> list[Agent]:
    """Agents whose shared memories are there."""
    await scene.populated(tenants)
    agents = settled_agents(scene, history, chosen, tenants=tenants, at_once=at_once)
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            if agent.number == 0:
                group.create_task(agent.settle_in())
    return agents


async def judged(scene: Scene, history: History, agents: list[Agent]) -> list[Verdict]:
    """Let everything come to rest, then hold history, truth, API and index against each other."""
    await scene.healed()
    dead_letters = await scene.settled()
    final = await _read_back(scene, history, agents)
    truth = await read_truth(scene.stack.stores.postgres_admin_url)
    await scene.indexed()
    first = await scene.reconciled()
    second = await scene.reconciled()
    left = second.missing + second.outdated + second.orphaned
    return [
        *verdicts_of(history, truth, final),
        Verdict("nothing is on the dead-letter list", dead_letters == 0, f"{dead_letters} dead letters"),
        Verdict(
            "the index has become what the truth says",
            left == 0,
            f"{first.missing} missing, {first.outdated} outdated, {first.orphaned} orphaned were left by the run "
            f"among {first.compared}; {left} after the repair",
        ),
    ]


def back_after(nemesis: Nemesis) -> dict[str, str]:
    """How long each process was away."""
    return {
        f"{name} back after, median and longest": f"{statistics.median(times):.2f} s, {max(times):.2f} s"
        for name, times in sorted(nemesis.back_s.items())
    }


async def _reached(history: History, acknowledged: int, within_s: float = 180.0) -> None:
    """Wait until so much is acknowledged."""
    async with asyncio.timeout(within_s):
        while history.acknowledged < acknowledged:  # noqa: ASYNC110 - agents wait for servers, not for each other
            await asyncio.sleep(0.01)


async def _read_back(scene: Scene, history: History, agents: list[Agent]) -> dict[tuple[str, str], str | None]:
    """Read every memory through the API, each on its way."""
    homes = {agent.home.name: agent.home for agent in agents}
    turns = asyncio.Semaphore(16)
    found: dict[tuple[str, str], str | None] = {}

    async def read(tenant: str, key: str) -> None:
        stub = rpc.MemoryServiceStub(scene.brain if key.startswith("brain.") else scene.memory)
        request = pb.GetRequest(target=named(key))
        async with turns, asyncio.timeout(60):
            while (tenant, key) not in found:
                try:
                    answer = await stub.Get(request, metadata=homes[tenant].metadata, timeout=5, wait_for_ready=True)
                except grpc.aio.AioRpcError as failed:
                    if failed.code() is grpc.StatusCode.NOT_FOUND:
                        found[tenant, key] = None
                    elif failed.code() not in AWAY:
                        raise
                else:
                    found[tenant, key] = answer.memory.text

    async with asyncio.TaskGroup() as group:
        for tenant, key in registers(history.calls):
            group.create_task(read(tenant, key))
    return found

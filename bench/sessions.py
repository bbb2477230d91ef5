"""Agents with sessions, for measuring a brain: the running stack they talk to, what they observe, and a clock."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.item import ItemKind, Observation
from brain_server.stores.sqlite.file import BrainFile
from brain_server.stores.sqlite.items import SqliteSessions
from soma.common.v1 import types_pb2
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma.memory.v1 import working_memory_service_pb2_grpc as rpc
from soma_contract.tenant import admin_tenant
from soma_embedded.stack import EmbeddedStack

DIMENSIONS = 384
ITEMS = 128
WARM = 20
"""Calls of each kind before the clock runs."""
WORDS = ("river", "lamp", "ticket", "garden", "copper", "window", "market", "signal", "bridge", "winter", "letter")


@dataclass(frozen=True, slots=True)
class Figure:
    """One result; ``holds`` says whether it keeps its floor."""

    name: str
    told: str
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """A running stack and the calls into it."""

    stack: EmbeddedStack
    brain: grpc.aio.Channel
    memory: grpc.aio.Channel

    @property
    def key(self) -> tuple[str, str]:
        """The development key's metadata."""
        return ("authorization", f"Bearer {self.stack.development_key}")

    def session(self, name: str) -> list[tuple[str, str]]:
        """The metadata of a call in a session."""
        return [self.key, ("soma-session", name)]

    def brain_cpu_s(self) -> float:
        """CPU seconds the brain has used."""
        return cpu_s(self.stack.pids["brain"])


def sentence(number: int) -> str:
    """A sentence of about twenty words, different for each number."""
    return f"note {number}: " + " ".join(np.random.default_rng(number).choice(WORDS, 18))


def vectors(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Directions at random: all of them new."""
    return np.random.default_rng(7).standard_normal((count, DIMENSIONS)).astype("<f4")


def with_vectors(count: int) -> list[pb.Observation]:
    """Observations that bring their vectors."""
    return [
        pb.Observation(
            sequence=number,
            text=sentence(number),
            embedding=types_pb2.Vector(packed_f32=vector.tobytes()),
            reward=0.5,
        )
        for number, vector in enumerate(vectors(count), start=1)
    ]


async def observe_all(place: Place, observations: Sequence[pb.Observation], session: str) -> float:
    """Send observations over one stream, as fast as the credit allows; return seconds until the last answer."""
    call: Any = rpc.WorkingMemoryServiceStub(place.brain).Observe(metadata=place.session(session))
    await call.write(pb.ObserveRequest(opening=pb.OpenSession()))
    opened = (await call.read()).opened
    room = asyncio.Semaphore(opened.credit)
    frames = [pb.ObserveRequest(observation=observation) for observation in observations]

    async def send() -> None:
        for frame in frames:
            await room.acquire()
            await call.write(frame)
        await call.done_writing()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        for _ in frames:
            answer = await call.read()
            if answer is grpc.aio.EOF or not answer.HasField("observed"):
                raise RuntimeError(f"not every observation was taken: {answer}")
            room.release()
    return time.perf_counter() - started


async def fill(directory: Path, sessions: int) -> None:
    """Write full sessions into a brain's file."""
    tenant = admin_tenant("dev", reason="bench")
    some = vectors(ITEMS)
    async with BrainFile(directory) as file:
        working = WorkingMemory(SqliteSessions(file))
        await working.load()
        for number in range(sessions):
            seen = [
                Observation(ItemKind.OBSERVATION, sentence(place), vector, 0.5, sequence=place)
                for place, vector in enumerate(some, start=1)
            ]
            await working.observe(tenant, f"s{number}", seen)


async def in_turns(rounds: int, *calls: Callable[[int], Awaitable[object]]) -> list[float]:
    """Time calls one after the other, again and again; return each one's p50 in milliseconds."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + WARM):
        for place, call in enumerate(calls):
            started = time.perf_counter()
            await call(number)
            if number >= WARM:
                times[place].append(time.perf_counter() - started)
    return [statistics.median(each) * 1e3 for each in times]


def cpu_s(pid: int | None) -> float:
    """CPU seconds a process has used: what other programs on the machine disturb least."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)

"""Agents of many tenants that write, read, recall, link and forget for as long as they are let.

Some talk to the brain, some to the memory server, each about memories of its own way in: what a brain has queued is
visible through that brain.  Shared memories are written by all agents of a way; what is forgotten is an agent's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from soma.batch.v1 import batch_service_pb2 as batch_pb
from soma.batch.v1 import batch_service_pb2_grpc as batch_rpc
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.graph.v1 import graph_service_pb2_grpc as graph_rpc
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from tests.adversity.torture.history import Call, History, Kind
from tests.adversity.torture.scene import AWAY, Inhabitant, Scene, now

PATIENCE_S = 4.0
"""Deadline of one try."""
TRIES_S = 90.0
"""How long a write is repeated before an agent gives it up without knowing what became of it."""
SHARED = 8
"""Memories of a tenant that all its agents of a way write."""


@dataclass(slots=True)
class Agent:
    """One client of one tenant on one way in."""

    way: str
    home: Inhabitant
    channel: grpc.aio.Channel
    history: History
    chosen: random.Random
    number: int
    at_once: asyncio.Semaphore
    """How many agents act at a time."""
    _turn: int = 0

    async def live(self) -> None:
        """Do one thing after the other until cancelled."""
        actions = (self.remember_shared, self.read, self.recall, self.come_and_go, self.link, self.remember_many)
        weights = (50, 18, 12, 10, 5, 5 if self.way == "memory" else 0)
        while True:
            (deed,) = self.chosen.choices(actions, weights)
            async with self.at_once:
                await deed()

    # --- deeds -----------------------------------------------------------------------------------

    async def settle_in(self) -> None:
        """Write every shared memory once, so that links have ends."""
        for number in range(SHARED):
            await self._remember(f"{self.way}.{number}")

    async def remember_shared(self) -> None:
        """Write a memory that others write as well."""
        await self._remember(self._shared())

    async def remember_many(self) -> None:
        """Write several memories with one call."""
        calls = [self._write(Kind.REMEMBER, key, self._text(key)) for key in self._several()]
        request = batch_pb.RememberBatchRequest(items=[_remembering(call) for call in calls])
        answer = await self._answered(calls, batch_rpc.BatchServiceStub(self.channel).RememberBatch, request)
        for call, item in zip(calls, answer.items if answer is not None else (), strict=False):
            # One that was refused, for a conflict say, may be written again or not: nothing was promised.
            if item.HasField("remembered"):
                self.history.acknowledge(call, now())

    async def _remember(self, key: str) -> str | None:
        """Write one memory; return the text if it was acknowledged."""
        call = self._write(Kind.REMEMBER, key, self._text(key))
        answer = await self._acknowledged(call, rpc.MemoryServiceStub(self.channel).Remember, _remembering(call))
        if answer is None:
            return None
        if answer.memory.text != call.value:
            self.history.wrong(f"Remember of {call.value!r} answered {answer.memory.text!r}")
        return call.value

    async def read(self, key: str = "") -> None:
        """Read one memory and note what was there."""
        key = key or self._shared()
        request = pb.GetRequest(target=named(key))
        call = Call(Kind.READ, self.home.name, key, None, now())
        try:
            answer = await rpc.MemoryServiceStub(self.channel).Get(
                request, metadata=self.home.metadata, timeout=PATIENCE_S
            )
            call.value = answer.memory.text
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.NOT_FOUND:
                await self._rest(failed)
                return
        call.ended = now()
        self.history.calls.append(call)
        self.history.counts["reads"] += 1

    async def recall(self) -> None:
        """Write a memory of one's own, then recall it: it is found, by an index that may lag or be gone."""
        text = await self._remember(f"{self.way}.mine.{self.number}")
        if text is not None:
            await self._recalled(text, wanted=True)

    async def come_and_go(self) -> None:
        """Write a memory of one's own, forget it, and see that it is gone."""
        key = f"{self.way}.own.{self.number}.{self.chosen.randrange(4)}"
        text = await self._remember(key)
        if text is None:
            return
        call = self._write(Kind.FORGET, key, None)
        request = pb.ForgetRequest(target=named(key), request_id=call.request_id)
        if await self._acknowledged(call, rpc.MemoryServiceStub(self.channel).Forget, request) is not None:
            await self.read(key)
            await self._recalled(text, wanted=False)

    async def link(self) -> None:
        """Link two shared memories."""
        source, target = self.chosen.sample(range(SHARED), 2)
        call = self._write(Kind.LINK, f"{source}>{target}", "related")
        request = graph_pb.LinkRequest(
            source=named(f"{self.way}.{source}"),
            target=named(f"{self.way}.{target}"),
            relation=f"r{self.chosen.randrange(1_000_000)}",
            request_id=call.request_id,
        )
        call.value = request.relation
        await self._acknowledged(call, graph_rpc.GraphServiceStub(self.channel).Link, request)

    # --- calling ---------------------------------------------------------------------------------

    async def _recalled(self, text: str, *, wanted: bool) -> None:
        """Recall a text: what was acknowledged is found, what was forgotten is not, and nothing is another's."""
        began = now()
        hits: list[memory_pb2.Memory] = []
        request = pb.RecallRequest(text=text, limit=5)
        whole = degraded = False
        try:
            stub = rpc.MemoryServiceStub(self.channel)
            async for frame in stub.Recall(request, metadata=self.home.metadata, timeout=2 * PATIENCE_S):
                if frame.HasField("summary"):
                    whole, degraded = True, frame.summary.degraded
                else:
                    hits.append(frame.hit.memory)
        except grpc.aio.AioRpcError as failed:
            await self._rest(failed)
            return
        ended = now()
        self.history.counts["recalls"] += 1
        self.history.counts["degraded recalls"] += degraded
        if not whole:
            self.history.wrong(f"a recall of {self.home.name} ended without a summary")
        for hit in hits:
            # The memory server owes nobody what a brain has queued.
            if self.way == "brain" or not hit.key.startswith("brain."):
                self.history.calls.append(Call(Kind.READ, self.home.name, hit.key, hit.text, began, ended=ended))
            if self.home.canary not in hit.text:
                self.history.wrong(f"{self.home.name} was shown {hit.text!r}")
        found = text in [hit.text for hit in hits]
        if found and not wanted:
            self.history.wrong(f"{self.home.name} was shown {text!r} after it was forgotten")
        # A brain whose memory server is away answers from what it holds, and says so.
        if wanted and not found and not (degraded and self.way == "brain"):
            self.history.wrong(f"a recall by {self.home.name} did not find {text!r}, acknowledged before")

    async def _acknowledged(self, call: Call, method: Callable[..., Any], request: Any) -> Any:
        """Send a write until it is acknowledged; None when it was refused or given up."""
        answer = await self._answered([call], method, request)
        if answer is not None:
            self.history.acknowledge(call, now(), queued=answer.durability == common.DURABILITY_QUEUED)
        return answer

    async def _answered(self, calls: Sequence[Call], method: Callable[..., Any], request: Any) -> Any:
        """Send a request again and again until it is answered; None when it was refused or given up."""
        until = now() + TRIES_S
        try:
            while now() < until:
                try:
                    return await method(request, metadata=self.home.metadata, timeout=PATIENCE_S)
                except grpc.aio.AioRpcError as failed:
                    await self._rest(failed)
                    if failed.code() not in AWAY:
                        return None
            self.history.counts["given up"] += len(calls)
            return None
        finally:
            self.history.in_flight -= len(calls)

    async def _rest(self, failed: grpc.aio.AioRpcError) -> None:
        if failed.code() not in AWAY:
            self.history.wrong(f"a call failed with {failed.code().name}: {failed.details()}")
        self.history.counts["failed tries"] += 1
        await asyncio.sleep(self.chosen.uniform(0.02, 0.2))

    def _write(self, kind: Kind, key: str, value: str | None) -> Call:
        request_id = str(uuid.UUID(int=self.chosen.getrandbits(128), version=4))
        return self.history.begin(Call(kind, self.home.name, key, value, now(), request_id))

    def _text(self, key: str) -> str:
        self._turn += 1
        return f"{self.home.canary} says {key} number {self.number} turn {self._turn} of {self.way}"

    def _shared(self) -> str:
        return f"{self.way}.{self.chosen.randrange(SHARED)}"

    def _several(self) -> list[str]:
        return [f"{self.way}.{number}" for number in self.chosen.sample(range(SHARED), 4)]


def _remembering(call: Call) -> pb.RememberRequest:
    return pb.RememberRequest(memory=memory_pb2.Memory(key=call.key, text=call.value or ""), request_id=call.request_id)


def named(key: str) -> common.MemoryTarget:
    """A memory by its key."""
    return common.MemoryTarget(key=common.NamespacedKey(key=key))


@contextlib.asynccontextmanager
async def living(agents: Sequence[Agent]) -> AsyncIterator[None]:
    """Let agents live until left; they drop what they are at, as clients do that are closed."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.live()) for agent in agents]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def settled_agents(scene: Scene, history: History, chosen: random.Random, *, tenants: int, at_once: int) -> list[Agent]:
    """Two agents of each tenant on each way in."""
    turns = asyncio.Semaphore(at_once)
    return [
        Agent(way, home, channel, history, random.Random(chosen.getrandbits(64)), number, turns)
        for home in scene.tenants[:tenants]
        for way, channel in (("brain", scene.brain), ("memory", scene.memory))
        for number in range(2)
    ]

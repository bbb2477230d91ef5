"""An agent with a session: what these tests speak to a brain with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from soma.memory.v1 import context_service_pb2 as context_pb
from soma.memory.v1 import context_service_pb2_grpc as context_rpc
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma.memory.v1 import memory_service_pb2_grpc as memory_rpc
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma.memory.v1 import working_memory_service_pb2_grpc as rpc
from tests.support.stack import Agent, Found


class Watcher:
    """One open Observe stream."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.ObserveRequest, pb.ObserveResponse]) -> None:
        self.call = call
        self.opened = pb.SessionOpened()
        self.sequence = 0

    async def open(self, **opening: Any) -> pb.SessionOpened:
        """Open the session and read what is in it."""
        await self.call.write(pb.ObserveRequest(opening=pb.OpenSession(**opening)))
        self.opened = (await self.read()).opened
        self.sequence = self.opened.sequence
        return self.opened

    async def send(self, text: str = "", **observation: Any) -> None:
        """Send an observation under the next number, unless another is given."""
        self.sequence = observation.pop("sequence", self.sequence + 1)
        await self.call.write(
            pb.ObserveRequest(observation=pb.Observation(sequence=self.sequence, text=text, **observation))
        )

    async def read(self) -> pb.ObserveResponse:
        """Read one frame."""
        frame = await self.call.read()
        assert isinstance(frame, pb.ObserveResponse), "the stream ended"
        return frame

    async def see(self, text: str = "", **observation: Any) -> pb.Observed:
        """Send one observation and read its answer."""
        await self.send(text, **observation)
        return (await self.read()).observed

    async def see_all(self, texts: Iterable[str], **observation: Any) -> list[pb.Observed]:
        """Send many observations and read their answers."""
        texts = [*texts]

        async def feed() -> None:
            for text in texts:
                await self.send(text, **observation)

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            return [(await self.read()).observed for _ in texts]


class Mind:
    """An agent in one session."""

    def __init__(self, channel: grpc.aio.Channel, agent: Agent, session: str) -> None:
        self.session = session
        self.metadata = [*agent.metadata, ("soma-session", session)] if session else [*agent.metadata]
        self.working = rpc.WorkingMemoryServiceStub(channel)
        self.memory = memory_rpc.MemoryServiceStub(channel)
        self.contexts = context_rpc.ContextServiceStub(channel)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Open a stream, the session itself not yet."""
        call = self.working.Observe(metadata=self.metadata)
        try:
            yield Watcher(call)
        finally:
            call.cancel()

    @asynccontextmanager
    async def observing(self, **opening: Any) -> AsyncIterator[Watcher]:
        """Open a stream and its session."""
        async with self.watching() as watcher:
            await watcher.open(**opening)
            yield watcher

    async def observe(self, *texts: str, **observation: Any) -> list[pb.Observed]:
        """Observe texts on a stream of their own."""
        async with self.observing() as watcher:
            return await watcher.see_all(texts, **observation)

    async def recall(self, text: str = "", **fields: Any) -> Found:
        """Recall in this session."""
        request = memory_pb.RecallRequest(**fields)
        if text:
            request.text = text
        hits: list[memory_pb.RecallHit] = []
        async for frame in self.memory.Recall(request, metadata=self.metadata, timeout=20):
            if frame.HasField("summary"):
                return Found(hits, frame.summary)
            hits.append(frame.hit)
        raise AssertionError("a recall ended without its summary")

    async def items(self, **fields: Any) -> Sequence[pb.WorkingItem]:
        """List the session's items."""
        return (await self.working.ListItems(pb.ListItemsRequest(**fields), metadata=self.metadata, timeout=20)).items

    async def tick(self) -> pb.TickResponse:
        """Advance the session by a tick."""
        return await self.working.Tick(pb.TickRequest(), metadata=self.metadata, timeout=20)

    async def assemble(
        self, text: str, *, timeout_s: float = 20, **fields: Any
    ) -> tuple[list[context_pb.ContextSection], context_pb.AssembleSummary]:
        """Assemble a context."""
        sections: list[context_pb.ContextSection] = []
        request = context_pb.AssembleRequest(text=text, **fields)
        async for frame in self.contexts.Assemble(request, metadata=self.metadata, timeout=timeout_s):
            if frame.HasField("summary"):
                return sections, frame.summary
            sections.append(frame.section)
        raise AssertionError("a context ended without its summary")


def leg_states(found: Found) -> dict[str, str]:
    """What became of each leg, by its name."""
    return {
        memory_pb.RecallLeg.Name(leg.leg).removeprefix("RECALL_LEG_").lower(): memory_pb.LegState.Name(
            leg.state
        ).removeprefix("LEG_STATE_")
        for leg in found.summary.legs
    }

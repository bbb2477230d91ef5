"""Further brains beside the one of a stack, and memory servers that stay away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma_embedded.child import Child
from soma_embedded.directory import DataDirectory
from soma_embedded.ports import LOOPBACK, free_port
from soma_embedded.servers import SomaServer
from soma_embedded.stack import EmbeddedStack
from tests.support.stack import Agent
from tests.support.stores import data_directory

QUICK = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
"""Of a client that comes back soon after its server does."""

TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)
"""What a client of a server that dies is told, now and then."""


class Brain:
    """A brain process with a data directory of its own; ``child`` kills, stops and starts it."""

    def __init__(self, child: Child, address: str, directory: DataDirectory) -> None:
        self.child = child
        self.address = address
        self.directory = directory
        self.channel = grpc.aio.insecure_channel(address, QUICK)

    async def restart_after_kill(self) -> None:
        """Kill it and wait until its successor answers."""
        await self.child.kill()
        await self.child.ready()


@asynccontextmanager
async def brain_beside(
    stack: EmbeddedStack, *, memory_target: str = "", settings: dict[str, str] | None = None
) -> AsyncIterator[Brain]:
    """A further brain before a stack's memory server, or before what stands between."""
    with data_directory() as path:
        directory = DataDirectory(path / "data")
        port = free_port()
        environment = {
            **stack.settings.environment,
            "SOMA_BRAIN_ADDRESS": f"{LOOPBACK}:{port}",
            "SOMA_BRAIN_MEMORY_TARGET": memory_target or stack.memory_address,
            "SOMA_DATA_DIR": str(directory.place("brain")),
            "SOMA_SERVICE_CREDENTIAL_FILE": str(stack.directory.place("secrets") / "brain.key"),
            **(settings or {}),
        }
        with directory.hold():
            server = SomaServer("brain", "brain_server", directory, port, environment, stop_grace_s=30.0)
            child = Child(server, directory)
            await child.start()
            brain = Brain(child, f"{LOOPBACK}:{port}", directory)
            try:
                yield brain
            finally:
                await brain.channel.close()
                await child.stop()


@asynccontextmanager
async def memory_away(stack: EmbeddedStack) -> AsyncIterator[None]:
    """Kill the memory server and keep it down while the block runs."""
    memory = stack.children["memory"]
    await memory.kill()
    await memory.stop()
    try:
        yield
    finally:
        await memory.start()


async def until_delivered(agent: Agent, admin: Sequence[tuple[str, str]]) -> None:
    """Wait until the brain's outbox is empty; nothing may be dead."""
    async with asyncio.timeout(120):
        while True:
            try:
                outbox = await agent.operator.GetOutbox(
                    operator_pb.GetOutboxRequest(), metadata=admin, timeout=5, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as failed:
                if failed.code() not in TRY_AGAIN:
                    raise
                continue
            assert 0 == outbox.dead_letters
            if not outbox.pending:
                return
            await asyncio.sleep(0.05)


def key_of(agent: Agent) -> str:
    """The key an agent calls with."""
    return dict(agent.metadata)["authorization"].removeprefix("Bearer ")

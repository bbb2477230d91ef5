"""What the tests of bulk work call with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from soma.batch.v1 import batch_service_pb2_grpc as batch_rpc
from soma.memory.v1 import watch_service_pb2_grpc as watch_rpc
from tests.support.stack import Agent, Office

if TYPE_CHECKING:
    from soma.batch.v1.batch_service_pb2_grpc import BatchServiceAsyncStub
    from soma.memory.v1.watch_service_pb2_grpc import WatchServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Caller:
    """An agent with the stubs of bulk work."""

    agent: Agent
    channel: grpc.aio.Channel
    address: str
    batch: BatchServiceAsyncStub
    watch: WatchServiceAsyncStub

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The agent's credentials and tenant."""
        return tuple(self.agent.metadata)

    @property
    def key(self) -> str:
        """The agent's key."""
        return self.agent.metadata[0][1].removeprefix("Bearer ")


def caller_of(office: Office, agent: Agent, *, through: str = "memory") -> Caller:
    """The bulk calls of an agent; the agent's own tell through which server it speaks."""
    channel = office.brain if through == "brain" else office.memory
    address = office.stack.brain_address if through == "brain" else office.stack.memory_address
    return Caller(agent, channel, address, batch_rpc.BatchServiceStub(channel), watch_rpc.WatchServiceStub(channel))

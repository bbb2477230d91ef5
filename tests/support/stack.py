"""The whole stack as real processes, and agents that talk to it as any client would."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest_asyncio

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_embedded.stack import EmbeddedStack, StackSettings
from tests.support.stores import data_directory

_numbers = itertools.count(1)
RANDOM_PORTS = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a recall answered."""

    hits: Sequence[pb.RecallHit]
    summary: pb.RecallSummary

    @property
    def texts(self) -> list[str]:
        """The texts of the hits, best first."""
        return [hit.memory.text for hit in self.hits]

    @property
    def ids(self) -> list[str]:
        """The ids of the hits, best first."""
        return [hit.memory.memory_id for hit in self.hits]


class Agent:
    """A client with one key and one tenant."""

    def __init__(self, channel: grpc.aio.Channel, key: str, tenant: str = "") -> None:
        self.tenant = tenant
        self.metadata = [("authorization", f"Bearer {key}")] + ([("soma-tenant", tenant)] if tenant else [])
        self.memory = rpc.MemoryServiceStub(channel)
        self.operator = operator_rpc.OperatorServiceStub(channel)

    async def remember(self, text: str = "", **fields: Any) -> pb.RememberResponse:
        """Remember one memory."""
        request = pb.RememberRequest(memory=memory_pb2.Memory(text=text, **fields))
        return await self.memory.Remember(request, metadata=self.metadata, timeout=20)

    async def get(self, memory_id: str) -> memory_pb2.Memory:
        """Read one memory by id."""
        request = pb.GetRequest(target=common.MemoryTarget(memory_id=memory_id))
        return (await self.memory.Get(request, metadata=self.metadata, timeout=20)).memory

    async def recall(self, text: str, **fields: Any) -> Found:
        """Recall by text."""
        hits: list[pb.RecallHit] = []
        request = pb.RecallRequest(text=text, **fields)
        async for frame in self.memory.Recall(request, metadata=self.metadata, timeout=20):
            if frame.HasField("summary"):
                return Found(hits, frame.summary)
            hits.append(frame.hit)
        raise AssertionError("a recall ended without its summary")


@dataclasses.dataclass(slots=True)
class Office:
    """Makes tenants and keys on a running stack."""

    stack: EmbeddedStack
    brain: grpc.aio.Channel
    memory: grpc.aio.Channel

    @property
    def admin_metadata(self) -> list[tuple[str, str]]:
        """The development key, which may administer."""
        return [("authorization", f"Bearer {self.stack.development_key}")]

    async def agent(self, *, through: str = "brain") -> Agent:
        """An agent of a new tenant."""
        name = f"t{next(_numbers)}-{self.stack.directory.root.name[-6:].lower().replace('_', '-')}"
        tenants = tenant_rpc.TenantServiceStub(self.memory)
        request = tenant_pb.CreateTenantRequest(tenant=tenant_pb.TenantRecord(tenant=name))
        await tenants.CreateTenant(request, metadata=self.admin_metadata, timeout=20)
        made = await tenants.CreateKey(
            tenant_pb.CreateKeyRequest(tenants=[name]), metadata=self.admin_metadata, timeout=20
        )
        return Agent(self.brain if through == "brain" else self.memory, made.bearer, name)

    async def indexed(self) -> None:
        """Wait until the index holds everything."""
        operator = operator_rpc.OperatorServiceStub(self.memory)
        while (  # noqa: ASYNC110 - there is no event to wait for
            await operator.GetIndexStatus(operator_pb.GetIndexStatusRequest(), metadata=self.admin_metadata, timeout=20)
        ).pending_rows:
            # Asked without a pause, the server would have less time for the index.
            await asyncio.sleep(0.05)


async def opened(stack: EmbeddedStack) -> Office:
    """An office with channels that reconnect quickly."""
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    return Office(
        stack,
        grpc.aio.insecure_channel(stack.brain_address, options),
        grpc.aio.insecure_channel(stack.memory_address, options),
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def office() -> AsyncIterator[Office]:
    """One running stack for the session; a test makes agents of tenants of its own."""
    with data_directory() as path:
        async with EmbeddedStack(path / "data", RANDOM_PORTS) as stack:
            opening = await opened(stack)
            try:
                yield opening
            finally:
                await opening.brain.close()
                await opening.memory.close()

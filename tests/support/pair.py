"""Two brains and two memory servers on the same stores, behind one address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from soma_embedded.child import Child
from soma_embedded.keys import Keys
from soma_embedded.ports import LOOPBACK, free_port
from soma_embedded.servers import SomaServer
from soma_embedded.stores import EmbeddedStores
from soma_embedded.supervision import Supervision
from tests.support.brains import QUICK
from tests.support.envoy import envoy_before
from tests.support.stack import Agent
from tests.support.stores import data_directory

Metadata = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two of each."""

    children: Mapping[str, Child]
    """brain-1, brain-2, memory-1, memory-2."""
    addresses: Mapping[str, str]
    envoy: str
    admin: Metadata

    def channel(self, name: str = "") -> grpc.aio.Channel:
        """A connection of its own to one server, or to the one address; close it."""
        target = self.addresses[name] if name else self.envoy
        return grpc.aio.insecure_channel(target, [*QUICK, ("grpc.use_local_subchannel_pool", 1)])

    async def agent(self, channel: grpc.aio.Channel, tenant: str) -> Agent:
        """An agent of a new tenant, made through the one address as well."""
        tenants = tenant_rpc.TenantServiceStub(channel)
        record = tenant_pb.TenantRecord(tenant=tenant)
        await tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=record), metadata=self.admin, timeout=20)
        request = tenant_pb.CreateKeyRequest(tenants=[tenant])
        return Agent(channel, (await tenants.CreateKey(request, metadata=self.admin, timeout=20)).bearer, tenant)

    async def instance(self, channel: grpc.aio.Channel, metadata: Metadata) -> str:
        """Which server process answers such a call."""
        info = await operator_rpc.OperatorServiceStub(channel).GetServerInfo(
            operator_pb.GetServerInfoRequest(), metadata=metadata, timeout=10
        )
        return info.instance_id

    async def names(self, metadata: Metadata) -> dict[str, str]:
        """The name of each brain that runs now by its instance."""
        found = {}
        for name in ("brain-1", "brain-2"):
            async with self.channel(name) as channel:
                found[await self.instance(channel, metadata)] = name
        return found

    async def delivered(self) -> None:
        """Wait until both outboxes are empty; nothing may be dead."""
        for name in ("brain-1", "brain-2"):
            await self.children[name].ready()
            async with self.channel(name) as channel, asyncio.timeout(120):
                operator = operator_rpc.OperatorServiceStub(channel)
                while True:
                    outbox = await operator.GetOutbox(
                        operator_pb.GetOutboxRequest(), metadata=self.admin, timeout=10, wait_for_ready=True
                    )
                    assert 0 == outbox.dead_letters, name
                    if not outbox.pending:
                        break
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def two_of_each(**settings: str) -> AsyncIterator[Pair]:
    """Start them, with a quick embedder; ``settings`` are SOMA_ variables for all."""
    async with AsyncExitStack() as stack:
        path = stack.enter_context(data_directory())
        stores = await stack.enter_async_context(EmbeddedStores(path / "stores"))
        keys = Keys(stores.directory)
        names = ("memory-1", "memory-2", "brain-1", "brain-2")
        addresses = {name: f"{LOOPBACK}:{free_port()}" for name in names}
        shared = {
            **stores.environment(),
            "SOMA_MILVUS_HOST": "",
            "SOMA_EMBEDDER": "hashing",
            "SOMA_TESTING": "1",
            "SOMA_BOOTSTRAP_KEY_FILE": str(keys.bootstrap_file),
            "SOMA_SERVICE_CREDENTIAL_FILE": str(keys.brain_file),
            # One name with two addresses, as a headless service is.
            "SOMA_BRAIN_MEMORY_TARGET": f"ipv4:{addresses['memory-1']},{addresses['memory-2']}",
            "SOMA_NOTICE_S": "2.5",
            **settings,
        }

        def child(name: str) -> Child:
            kind, _, port = name.partition("-")[0], "", int(addresses[name].rpartition(":")[2])
            own = {
                f"SOMA_{kind.upper()}_ADDRESS": addresses[name],
                "SOMA_DATA_DIR": str(Path(stores.directory.place("brain")) / name),
            }
            server = SomaServer(name, f"{kind}_server", stores.directory, port, {**shared, **own}, stop_grace_s=40.0)
            return Child(server, stores.directory)

        children = {name: child(name) for name in names}
        supervision = await stack.enter_async_context(Supervision())
        await supervision.start(*children.values())
        envoy = await stack.enter_async_context(
            envoy_before(
                [addresses["brain-1"], addresses["brain-2"]], [addresses["memory-1"], addresses["memory-2"]], path
            )
        )
        try:
            yield Pair(children, addresses, envoy, [("authorization", f"Bearer {keys.development}")])
        finally:
            # Side by side, since each of them gives notice first; brains before what they deliver to.
            for kind in ("brain", "memory"):
                async with asyncio.TaskGroup() as group:
                    for number in (1, 2):
                        group.create_task(children[f"{kind}-{number}"].stop())

"""Both servers as processes of their own, with a misbehaving network before each store and between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc

from soma_embedded import EmbeddedStores
from soma_embedded.child import Child
from soma_embedded.directory import DataDirectory
from soma_embedded.keys import Keys
from soma_embedded.ports import LOOPBACK, free_port
from soma_embedded.servers import SomaServer
from tests.support.brains import QUICK
from tests.support.fault_proxy import FaultProxy
from tests.support.stack import Agent
from tests.support.stores import FreshDatabase, data_directory


@dataclass(frozen=True, slots=True)
class Proxied:
    """Running servers and what stands between."""

    proxies: Mapping[str, FaultProxy]
    """By what is behind them: postgres, milvus, redis, memory."""
    brain: Agent
    memory: Agent
    """The development key's agents of both servers."""
    children: Mapping[str, Child]


@asynccontextmanager
async def proxied_servers(
    stores: EmbeddedStores,
    database: FreshDatabase,
    *,
    settings: Mapping[str, str] | None = None,
    together: bool = False,
) -> AsyncIterator[Proxied]:
    """A memory server and a brain on an empty database; what they share with others is Milvus and Redis.

    The brain is started when the memory server serves, or ``together`` with it.
    """
    async with AsyncExitStack() as stack:
        directory = DataDirectory(stack.enter_context(data_directory()) / "data")
        stack.enter_context(directory.hold())
        keys = Keys(directory)
        ports = {"memory": free_port(), "brain": free_port()}
        before = {"postgres": database.url, "milvus": stores.milvus_uri, "redis": stores.redis_url}
        proxies = {name: await stack.enter_async_context(FaultProxy.before(url)) for name, url in before.items()}
        proxies["memory"] = await stack.enter_async_context(FaultProxy(LOOPBACK, ports["memory"]))
        environment = {
            "SOMA_POSTGRES_URL": proxies["postgres"].url(database.url),
            "SOMA_POSTGRES_ADMIN_URL": database.admin_url,
            "SOMA_MILVUS_URI": proxies["milvus"].url(stores.milvus_uri),
            "SOMA_MILVUS_COLLECTION": database.name,
            "SOMA_MILVUS_HOST": "",
            "SOMA_REDIS_URL": proxies["redis"].url(stores.redis_url),
            "SOMA_MEMORY_ADDRESS": f"{LOOPBACK}:{ports['memory']}",
            "SOMA_BRAIN_ADDRESS": f"{LOOPBACK}:{ports['brain']}",
            "SOMA_BRAIN_MEMORY_TARGET": f"{LOOPBACK}:{proxies['memory'].port}",
            "SOMA_DATA_DIR": str(directory.place("brain")),
            "SOMA_SERVICE_CREDENTIAL_FILE": str(keys.brain_file),
            "SOMA_BOOTSTRAP_KEY_FILE": str(keys.bootstrap_file),
            **(settings or {}),
        }
        children = {}
        for name in ("memory", "brain"):
            server = SomaServer(name, f"{name}_server", directory, ports[name], environment, stop_grace_s=5.0)
            children[name] = Child(server, directory)
            stack.push_async_callback(children[name].stop)
            if not together:
                await children[name].start()
        if together:
            await asyncio.gather(*(child.start() for child in children.values()))
        agents = {}
        for name, port in ports.items():
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", QUICK))
            agents[name] = Agent(channel, keys.development)
        yield Proxied(proxies, agents["brain"], agents["memory"], children)

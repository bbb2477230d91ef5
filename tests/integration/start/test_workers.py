"""Several memory servers behind one port of one machine."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio

from memory_server.workers import reserved, settings_of
from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from soma_embedded import EmbeddedStores
from soma_embedded.ports import free_port
from tests.support.entry_points import Started, started
from tests.support.stores import FreshDatabase, data_directory

ROOT = Path(__file__).resolve().parents[3]
KEY = "soma_workers00_" + "w" * 40


@dataclass(frozen=True, slots=True)
class Crew:
    """Two workers and what watches them."""

    running: Started
    address: str

    async def instance(self) -> str:
        """The server that a new connection meets."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.address, options) as channel:
            info = await rpc.OperatorServiceStub(channel).GetServerInfo(
                pb.GetServerInfoRequest(), metadata=[("authorization", f"Bearer {KEY}")], timeout=10
            )
        return info.instance_id

    async def both(self) -> set[str]:
        """Connect until two servers have answered."""
        met: set[str] = set()
        async with asyncio.timeout(60):
            while len(met) < 2:
                try:
                    met.add(await self.instance())
                except grpc.aio.AioRpcError as failed:
                    if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
        return met

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.running.process.pid).children()


@pytest_asyncio.fixture(loop_scope="session")
async def crew(stores: EmbeddedStores, fresh_database: FreshDatabase, redis_url: str) -> AsyncIterator[Crew]:
    address, ops = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with data_directory() as path:
        keys = path / "bootstrap.json"
        keys.write_text(json.dumps([{"key": KEY, "tenants": ["dev"], "scopes": ["*"]}]))
        environment = {
            "SOMA_POSTGRES_URL": fresh_database.url,
            "SOMA_POSTGRES_ADMIN_URL": fresh_database.admin_url,
            "SOMA_MILVUS_URI": stores.milvus_uri,
            "SOMA_REDIS_URL": redis_url,
            "SOMA_EMBEDDER": "hashing",
            "SOMA_TESTING": "1",
            "SOMA_BOOTSTRAP_KEY_FILE": str(keys),
            "SOMA_MEMORY_ADDRESS": address,
            "SOMA_MEMORY_OPS_ADDRESS": ops,
        }
        argv = [sys.executable, "-m", "memory_server", "--workers", "2"]
        async with started(argv, environment, ops=ops, log=path / "log", directory=ROOT) as running:
            yield Crew(running, address)
        assert 0 == running.code, (path / "log").read_text()


@pytest.mark.processes
async def test_connections_are_spread_over_workers_and_a_killed_one_is_replaced(crew: Crew) -> None:
    first = await crew.both()
    victim = crew.workers[0]
    victim.kill()
    everybody = set(first)
    async with asyncio.timeout(60):
        while len(everybody) < 3:
            everybody |= await crew.both()
    assert 3 == len(everybody), "one of the two has a successor, the other went on"
    assert 2 == len(crew.workers)


def test_a_port_that_somebody_has_is_not_shared_with_him() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"), reserved(f"127.0.0.1:{port}"):
            pass


def test_each_worker_has_an_ops_port_of_its_own() -> None:
    told = settings_of(2, {"SOMA_MEMORY_OPS_ADDRESS": "0.0.0.0:9599", "SOMA_X": "y"}, "127.0.0.1:9595")
    assert ("0.0.0.0:9601", "127.0.0.1:9595", "2", "y") == (
        told["SOMA_MEMORY_OPS_ADDRESS"],
        told["SOMA_MEMORY_ADDRESS"],
        told["SOMA_WORKER"],
        told["SOMA_X"],
    )

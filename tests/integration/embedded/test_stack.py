"""The whole stack as a user starts it: stores and both servers, real processes all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_embedded import EmbeddedStack, StackSettings, State
from soma_embedded.identity import started
from tests.support.stores import data_directory

pytestmark = [pytest.mark.stores, pytest.mark.processes]

ANYWHERE = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")


async def listed(address: str, key: str) -> int:
    """How many memories the tenant of the key has, asked as any client would."""
    async with grpc.aio.insecure_channel(address) as channel:
        metadata = (("authorization", f"Bearer {key}"),)
        answer = await rpc.MemoryServiceStub(channel).List(pb.ListRequest(), metadata=metadata, timeout=20)
    return len(answer.memories)


async def test_both_servers_answer_the_printed_key_also_after_each_was_killed() -> None:
    with data_directory() as path:
        async with EmbeddedStack(path / "data", ANYWHERE) as stack:
            for address in (stack.memory_address, stack.brain_address):
                assert await listed(address, stack.development_key) == 0
            for name in ("memory", "brain"):
                await stack.kill(name)
                await stack.ready(name)
            await stack.connected()
            for address in (stack.memory_address, stack.brain_address):
                assert await listed(address, stack.development_key) == 0
            pids = list(stack.pids.values())
            assert {State.READY} == set(stack.states.values())
        assert [] == [pid for pid in pids if pid is not None and started(pid) is not None]


async def test_a_key_of_another_directory_is_refused() -> None:
    with data_directory() as path:
        async with EmbeddedStack(path / "data", ANYWHERE) as stack:
            foreign = stack.development_key[:-4] + "0000"
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await listed(stack.memory_address, foreign)
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_up_prints_where_it_is_and_ends_on_an_interrupt() -> None:
    with data_directory() as path:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "soma_embedded",
            f"--data-dir={path / 'data'}",
            "--brain-address=127.0.0.1:0",
            "--memory-address=127.0.0.1:0",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(120):
                printed = (await process.stdout.readuntil(b"Ctrl-C stops it.")).decode()
        finally:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.communicate(), 60)
        key = (path / "data" / "secrets" / "dev.key").read_text()
        assert not list(Path(path / "data" / "run").glob("*.json"))
    assert f"authorization: Bearer {key}" in printed
    assert process.returncode == 0

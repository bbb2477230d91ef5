"""How fast a memory is stored: p50 one at a time, and writes a second with 64 at a time, as ratios in one run.

    ./dev bench remember [--writes 1500] [--rounds 3] [--json FILE]

Beside it in turns: a gRPC call that takes and answers the same messages and does nothing (a bare server in a process of
its own), and a durable INSERT of the same values into a plain table by asyncpg, each its own transaction. Vectors are
given with the memories and the indexer is paused, so that nothing but the write itself is measured. Exits 1 below the
floors: 64 at a time a quarter of the no-op calls a second, one at a time three times insert and call together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import numpy as np
import psutil

from bench.corpus import sentences
from bench.places import workspace
from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_embedded import EmbeddedStack, StackSettings

CONCURRENT = 64
TENANTS = 50
RATE_FLOOR = 0.25
LATENCY_CEILING = 3.0
_DIMENSION = 384
_TABLE = "CREATE TABLE plain (tenant text, memory_id uuid, text text, embedding bytea, PRIMARY KEY (tenant, memory_id))"

Write = Callable[[pb.RememberRequest], Awaitable[object]]


def requests(number: int) -> list[pb.RememberRequest]:
    """Distinct memories with unit vectors."""
    vectors = np.random.default_rng(7).standard_normal((number, _DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = []
    for place, (actor, text) in enumerate(sentences(number)):
        memory = memory_pb2.Memory(text=f"{text} {place}", actor=actor, session_id=f"s{place // 20}")
        memory.embedding.packed_f32 = vectors[place].tobytes()
        made.append(pb.RememberRequest(memory=memory))
    return made


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways in turns on one stack."""
    with workspace() as directory:
        settings = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")
        async with contextlib.AsyncExitStack() as exits:
            stack = await exits.enter_async_context(EmbeddedStack(directory / "data", settings))
            ways = await exits.enter_async_context(_ways(stack))
            server = psutil.Process(stack.pids["memory"])
            return await _timed(ways, arguments.writes, arguments.rounds, server)


@contextlib.asynccontextmanager
async def _ways(stack: EmbeddedStack) -> AsyncIterator[dict[str, Write]]:
    admin = [("authorization", f"Bearer {stack.development_key}")]
    async with (
        grpc.aio.insecure_channel(stack.memory_address) as memory,
        _no_op() as no_op,
        _plain(stack) as plain,
    ):
        await operator_rpc.OperatorServiceStub(memory).PauseIndexer(operator_pb.PauseIndexerRequest(), metadata=admin)
        keys = [await _key(memory, f"tenant-{number}", admin) for number in range(TENANTS)]
        yield {
            "no-op call": no_op,
            "plain insert": plain,
            "remember, 1 tenant": _remember(memory, keys[:1]),
            f"remember, {TENANTS} tenants": _remember(memory, keys),
        }


async def _key(memory: grpc.aio.Channel, tenant: str, admin: list[tuple[str, str]]) -> list[tuple[str, str]]:
    tenants = tenant_rpc.TenantServiceStub(memory)
    record = tenant_pb.TenantRecord(tenant=tenant)
    await tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=record), metadata=admin)
    made = await tenants.CreateKey(tenant_pb.CreateKeyRequest(tenants=[tenant]), metadata=admin)
    return [("authorization", f"Bearer {made.bearer}")]


def _remember(memory: grpc.aio.Channel, keys: list[list[tuple[str, str]]]) -> Write:
    stub, turns = rpc.MemoryServiceStub(memory), cycle(keys)

    async def write(request: pb.RememberRequest) -> object:
        return await stub.Remember(request, metadata=next(turns))

    return write


@contextlib.asynccontextmanager
async def _plain(stack: EmbeddedStack) -> AsyncIterator[Write]:
    pool = await asyncpg.create_pool(stack.stores.postgres_admin_url, min_size=8, max_size=16)
    await pool.execute(_TABLE)

    async def write(request: pb.RememberRequest) -> object:
        memory = request.memory
        values = ("t", uuid.uuid4(), memory.text, memory.embedding.packed_f32)
        return await pool.execute("INSERT INTO plain VALUES ($1, $2, $3, $4)", *values)

    try:
        yield write
    finally:
        await pool.close()


# --- the call that does nothing ----------------------------------------------------------------------------------


async def _nothing(request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
    return pb.RememberResponse(memory=request.memory)


async def _serve_nothing() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        _nothing,
        request_deserializer=pb.RememberRequest.FromString,
        response_serializer=pb.RememberResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("soma.memory.v1.MemoryService", {"Remember": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    # Ends when the measurement lets go of it.
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


@contextlib.asynccontextmanager
async def _no_op() -> AsyncIterator[Write]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.remember", "--serve-nothing", stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = rpc.MemoryServiceStub(channel)

            async def write(request: pb.RememberRequest) -> object:
                return await stub.Remember(request)

            yield write
    finally:
        process.stdin.close()
        await process.wait()


# --- timing ------------------------------------------------------------------------------------------------------


async def _timed(ways: dict[str, Write], writes: int, rounds: int, server: psutil.Process) -> dict[str, Any]:
    """Time all ways in turns, so that a machine that slows down slows all of them."""
    fresh = iter(cycle(requests(4 * writes)))
    for write in ways.values():
        for _ in range(50):
            await write(next(fresh))
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(writes // 4):
        for name, write in ways.items():
            request = next(fresh)
            started = time.perf_counter()
            await write(request)
            took[name].append((time.perf_counter() - started) * 1e3)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, write in ways.items():
            before = sum(server.cpu_times()[:2])
            rates[name].append(await _rate(write, fresh, writes))
            costs[name].append((sum(server.cpu_times()[:2]) - before) / writes * 1e3)
    p50 = {name: statistics.median(each) for name, each in took.items()}
    per_s = {name: statistics.median(each) for name, each in rates.items()}
    together = p50["plain insert"] + p50["no-op call"]
    return {
        name: {
            "p50_ms": p50[name],
            "per_s": per_s[name],
            "memory_server_cpu_ms": statistics.median(costs[name]),
            "p50_to_insert_and_call": p50[name] / together,
            "per_s_to_no_op": per_s[name] / per_s["no-op call"],
        }
        for name in ways
    }


async def _rate(write: Write, fresh: Iterator[pb.RememberRequest], writes: int) -> float:
    numbers = count()
    started = time.perf_counter()

    async def work() -> None:
        while next(numbers) < writes:
            await write(next(fresh))

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(work())
    return writes / (time.perf_counter() - started)


def _shown(report: dict[str, Any]) -> bool:
    """Print the report; whether the floors hold."""
    sys.stdout.write(
        f"{'way':24} {'p50 ms':>8} {'per s':>8} {'server cpu ms':>14} {'p50/(insert+call)':>18} {'rate/no-op':>11}\n"
    )
    holds = True
    for name, way in report.items():
        sys.stdout.write(
            f"{name:24} {way['p50_ms']:8.2f} {way['per_s']:8.0f} {way['memory_server_cpu_ms']:14.2f} "
            f"{way['p50_to_insert_and_call']:18.2f} {way['per_s_to_no_op']:11.2f}\n"
        )
        if name.startswith("remember"):
            holds = holds and way["per_s_to_no_op"] >= RATE_FLOOR and way["p50_to_insert_and_call"] <= LATENCY_CEILING
    return holds


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=1_500, help="of each way and round")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--json", type=Path, help="write the report there as well")
    parser.add_argument("--serve-nothing", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    ARGUMENTS = parsed()
    if ARGUMENTS.serve_nothing:
        asyncio.run(_serve_nothing())
        sys.exit(0)
    REPORT = asyncio.run(main(ARGUMENTS))
    if ARGUMENTS.json:
        ARGUMENTS.json.write_text(json.dumps(REPORT, indent=2) + "\n")
    sys.exit(0 if _shown(REPORT) else 1)

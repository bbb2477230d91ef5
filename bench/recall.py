"""How fast recall is: p50, p95 and p99 one at a time, and throughput with 32 at a time, as ratios in one run.

    ./dev bench recall [--sizes 2000,20000] [--tenants 10] [--queries 200] [--rounds 400] [--single] [--json]

The floor is what one would write by hand on the same stores and rows: both searches of the index, reciprocal rank
fusion and one read of the rows by primary key, without tenancy, re-check, overlay or filters. Beside it a call of
the health service, which does nothing. Query vectors are given with the query, so no side embeds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import numpy as np
import psutil
from grpc_health.v1 import health_pb2
from pymilvus import AnnSearchRequest, AsyncMilvusClient, RRFRanker

from bench.corpus import questions, sentences
from bench.places import workspace
from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.embedders.factory import build_embedder
from soma_embedded import EmbeddedStack, StackSettings

CONCURRENT = 32
LIMIT = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of one tenant."""

    tenant: str
    text: str
    vector: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Speed:
    """Latencies one at a time in ms, and throughput with CONCURRENT at a time."""

    p50: float
    p95: float
    p99: float
    per_s: float
    failed: float
    """Share of the calls made at once that were refused; they do not count as answered."""


Ask = Callable[[Asked], Awaitable[None]]


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every size in turn on one stack."""
    report: dict[str, Any] = {}
    with workspace() as directory:
        settings = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")
        async with EmbeddedStack(directory / "data", settings) as stack:
            for size in arguments.sizes:
                report[str(size)] = await measure(stack, size, arguments)
    return report


async def measure(stack: EmbeddedStack, size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Store ``size`` memories over the tenants, then time every way to ask."""
    tenants = [f"size{size}-{number}" for number in range(1 if arguments.single else arguments.tenants)]
    admin = [("authorization", f"Bearer {stack.development_key}")]
    async with grpc.aio.insecure_channel(stack.memory_address) as memory:
        keys = {tenant: await _key(memory, tenant, admin) for tenant in tenants}
        started = time.perf_counter()
        per_tenant = size // len(tenants)
        await asyncio.gather(*(_fill(memory, keys[tenant], per_tenant) for tenant in tenants))
        stored_s = time.perf_counter() - started
        await _indexed(memory, admin)
        indexed_s = time.perf_counter() - started
        async with grpc.aio.insecure_channel(stack.brain_address) as brain:
            asked = await _asked(tenants, arguments.queries)
            ways: dict[str, Ask] = {"no-op call": _no_op(memory)}
            async with _floor(stack, memory, admin) as floor:
                ways["floor"] = floor
                for preset in ("FAST", "BALANCED"):
                    ways[f"{preset.lower()}, memory server"] = _recall(memory, keys, preset)
                    ways[f"{preset.lower()}, brain"] = _recall(brain, keys, preset)
                speeds = await _timed(ways, asked, arguments.rounds)
    floor_speed = speeds["floor"]
    server = psutil.Process(stack.pids["memory"])
    return {
        "memories": size,
        "tenants": len(tenants),
        "stored_per_s": per_tenant * len(tenants) / stored_s,
        "indexed_per_s": per_tenant * len(tenants) / indexed_s,
        "memory_server_rss_mb": server.memory_info().rss / 2**20,
        "ways": {
            name: {
                "p50_ms": speed.p50,
                "p95_ms": speed.p95,
                "p99_ms": speed.p99,
                "per_s": speed.per_s,
                "failed": speed.failed,
                "p50_to_floor": speed.p50 / floor_speed.p50,
                "per_s_to_floor": speed.per_s / floor_speed.per_s,
            }
            for name, speed in speeds.items()
        },
    }


# --- filling -----------------------------------------------------------------------------------------------------


async def _key(memory: grpc.aio.Channel, tenant: str, admin: list[tuple[str, str]]) -> list[tuple[str, str]]:
    tenants = tenant_rpc.TenantServiceStub(memory)
    record = tenant_pb.TenantRecord(tenant=tenant)
    await tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=record), metadata=admin)
    made = await tenants.CreateKey(tenant_pb.CreateKeyRequest(tenants=[tenant]), metadata=admin)
    return [("authorization", f"Bearer {made.bearer}")]


async def _fill(memory: grpc.aio.Channel, metadata: list[tuple[str, str]], count: int) -> None:
    async def requests() -> AsyncIterator[pb.RememberManyRequest]:
        for number, (actor, text) in enumerate(sentences(count)):
            remembered = memory_pb2.Memory(text=text, actor=actor, session_id=f"s{number // 20}", sequence=number % 20)
            yield pb.RememberManyRequest(correlation_id=str(number), remember=pb.RememberRequest(memory=remembered))

    stored = 0
    async for answer in rpc.MemoryServiceStub(memory).RememberMany(requests(), metadata=metadata):
        if not answer.HasField("remembered"):
            raise RuntimeError(f"a memory was refused: {answer}")
        stored += 1
    if stored != count:
        raise RuntimeError(f"{stored} of {count} stored")


async def _indexed(memory: grpc.aio.Channel, admin: list[tuple[str, str]]) -> None:
    operator = operator_rpc.OperatorServiceStub(memory)
    request = operator_pb.GetIndexStatusRequest()
    while (await operator.GetIndexStatus(request, metadata=admin)).pending_rows:  # noqa: ASYNC110 - it does not tell
        await asyncio.sleep(0.5)
    # The overlay keeps what was indexed within the last ten seconds: measure the settled state.
    await asyncio.sleep(11)


async def _asked(tenants: Sequence[str], count: int) -> list[Asked]:
    texts = questions(count)
    async with build_embedder("local") as embedder:
        vectors = await embedder.embed(texts)
    return [
        Asked(tenants[number % len(tenants)], text, vector.dense)
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


# --- the ways to ask ---------------------------------------------------------------------------------------------


def _no_op(memory: grpc.aio.Channel) -> Ask:
    check = memory.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )

    async def ask(asked: Asked) -> None:
        await check(health_pb2.HealthCheckRequest())

    return ask


def _recall(channel: grpc.aio.Channel, keys: dict[str, list[tuple[str, str]]], preset: str) -> Ask:
    stub = rpc.MemoryServiceStub(channel)
    wanted = pb.RecallPreset.Value(f"RECALL_PRESET_{preset}")

    async def ask(asked: Asked) -> None:
        request = pb.RecallRequest(text=asked.text, limit=LIMIT, preset=wanted, together=True)
        request.text_embedding.packed_f32 = asked.vector.tobytes()
        frames = [frame async for frame in stub.Recall(request, metadata=keys[asked.tenant])]
        if len(frames) != 1 or not frames[0].hits.hits or frames[0].hits.summary.degraded:
            raise RuntimeError(f"a recall was not whole: {frames[-1:]}")

    return ask


@contextlib.asynccontextmanager
async def _floor(stack: EmbeddedStack, memory: grpc.aio.Channel, admin: list[tuple[str, str]]) -> AsyncIterator[Ask]:
    index = AsyncMilvusClient(uri=stack.stores.milvus_uri)
    pool = await asyncpg.create_pool(stack.stores.postgres_admin_url, min_size=8, max_size=CONCURRENT)
    names = [name for name in await index.list_collections() if name.startswith("soma_memories")]
    name = max(names)

    async def ask(asked: Asked) -> None:
        tenant = f'tenant == "{asked.tenant}"'
        found = await index.hybrid_search(
            name,
            [
                AnnSearchRequest([asked.vector.tolist()], "dense", {}, 50, expr=tenant),
                AnnSearchRequest([asked.text], "sparse", {}, 50, expr=tenant),
            ],
            RRFRanker(),
            limit=LIMIT,
            output_fields=["pk"],
        )
        ids = [hit["pk"].partition("|")[2] for hit in found[0]]
        rows = await pool.fetch(
            "SELECT * FROM memory_items WHERE tenant = $1 AND memory_id = ANY($2::uuid[])", asked.tenant, ids
        )
        if len(rows) != min(LIMIT, len(ids)) or not rows:
            raise RuntimeError(f"the floor found {len(rows)} rows for {len(ids)} ids")

    try:
        yield ask
    finally:
        await pool.close()
        await index.close()


# --- timing ------------------------------------------------------------------------------------------------------


async def _timed(ways: dict[str, Ask], asked: Sequence[Asked], rounds: int) -> dict[str, Speed]:
    """Time all ways interleaved, so that a machine that slows down slows all of them."""
    for ask in ways.values():
        for one in asked:
            await ask(one)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        one = asked[number % len(asked)]
        for name, ask in ways.items():
            started = time.perf_counter()
            await ask(one)
            took[name].append((time.perf_counter() - started) * 1e3)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(3):
        for name, ask in ways.items():
            rates[name].append(await _throughput(ask, asked, max(CONCURRENT, rounds // 2)))
    return {
        name: Speed(
            float(np.percentile(latencies, 50)),
            float(np.percentile(latencies, 95)),
            float(np.percentile(latencies, 99)),
            float(np.median([rate for rate, _ in rates[name]])),
            float(np.mean([failed for _, failed in rates[name]])),
        )
        for name, latencies in took.items()
    }


async def _throughput(ask: Ask, asked: Sequence[Asked], count: int) -> tuple[float, float]:
    """Answers a second, and the share of calls that got none."""
    numbers = iter(range(count))
    failed = 0

    async def work() -> None:
        nonlocal failed
        for number in numbers:
            try:
                await ask(asked[number % len(asked)])
            except grpc.aio.AioRpcError:
                failed += 1

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(work())
    return (count - failed) / (time.perf_counter() - started), failed / count


def _shown(report: dict[str, Any]) -> None:
    for size in report.values():
        sys.stdout.write(
            f"\n{size['memories']} memories, {size['tenants']} tenants: stored {size['stored_per_s']:.0f}/s, "
            f"searchable {size['indexed_per_s']:.0f}/s, memory server {size['memory_server_rss_mb']:.0f} MB\n"
            f"{'way':24} {'p50 ms':>8} {'p95':>8} {'p99':>8} {'per s':>8} {'p50/floor':>10} {'rate/floor':>11}\n"
        )
        for name, way in size["ways"].items():
            sys.stdout.write(
                f"{name:24} {way['p50_ms']:8.2f} {way['p95_ms']:8.2f} {way['p99_ms']:8.2f} {way['per_s']:8.0f} "
                f"{way['p50_to_floor']:10.2f} {way['per_s_to_floor']:11.2f}"
                f"{'   refused ' + format(way['failed'], '.0%') if way['failed'] else ''}\n"
            )


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=[2_000, 20_000])
    parser.add_argument("--tenants", type=int, default=10)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--single", action="store_true", help="one tenant holds all memories")
    parser.add_argument("--json", type=Path, help="write the report there as well")
    return parser.parse_args(argv)


if __name__ == "__main__":
    ARGUMENTS = parsed()
    REPORT = asyncio.run(main(ARGUMENTS))
    _shown(REPORT)
    if ARGUMENTS.json:
        ARGUMENTS.json.write_text(json.dumps(REPORT, indent=2) + "\n")

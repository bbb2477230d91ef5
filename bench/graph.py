"""How fast the graph is, as ratios to what one would write by hand, in one run.

    ./dev bench graph [--links 1000000] [--rounds 200] [--degree 5] [--json]

Neighbours one link away through the memory server, beside the bare statement on a bare connection plus a stream of
equal size from a server that does nothing (ceiling of the ratio: 2). Neighbours three links away and paths of up to
six links in a tenant of 100,000 links, beside the statements by hand, with the share of answers that say partial.
Links imported a second over one stream, beside plain inserts (floor: 10,000 a second). Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import grpc

from bench.places import workspace
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from soma.batch.v1 import batch_service_pb2 as batch_pb
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2_grpc as rpc
from soma_client import SomaClient
from soma_contract.tenant import admin_tenant
from soma_embedded import EmbeddedStack, StackSettings
from tests.support.big_graphs import RANDOM, memory_id, plant

TENANT_LINKS = 100_000
INGESTED = 50_000
CHUNK = 1_000
RATIO_CEILING, INGEST_FLOOR = 2.0, 10_000.0

ONE_HOP = """
SELECT * FROM (
    (SELECT * FROM links WHERE tenant = $1 AND source_id = $2 ORDER BY strength DESC LIMIT 100)
    UNION ALL
    (SELECT * FROM links WHERE tenant = $1 AND target_id = $2 ORDER BY strength DESC LIMIT 100)
) AS l ORDER BY strength DESC LIMIT 100
"""
THREE_HOPS = """
WITH RECURSIVE walk (id, depth) AS (
    SELECT $2::uuid, 0
    UNION
    SELECT n.id, w.depth + 1 FROM walk w CROSS JOIN LATERAL (
        SELECT target_id AS id FROM links WHERE tenant = $1 AND source_id = w.id
        UNION ALL
        SELECT source_id FROM links WHERE tenant = $1 AND target_id = w.id
    ) AS n WHERE w.depth < 3
)
SELECT id, min(depth) FROM walk GROUP BY id ORDER BY 2 LIMIT 100
"""
_SIDE = """
    SELECT ${end}::uuid AS id, 0 AS depth, 0.0::float8 AS cost
    UNION
    SELECT n.id, w.depth + 1, w.cost - ln(n.strength) FROM {name} w CROSS JOIN LATERAL (
        SELECT target_id AS id, strength FROM links WHERE tenant = $1 AND source_id = w.id
        UNION ALL
        SELECT source_id, strength FROM links WHERE tenant = $1 AND target_id = w.id
    ) AS n WHERE w.depth < 3
"""
PATH = (
    f"WITH RECURSIVE a (id, depth, cost) AS ({_SIDE.format(end=2, name='a')}),"
    f" b (id, depth, cost) AS ({_SIDE.format(end=3, name='b')})"
    " SELECT a.id, a.cost + b.cost FROM a JOIN b USING (id) ORDER BY 2 LIMIT 1"
)
_NO_OP = "/bench.NoOp/Stream"

Call = Callable[[int], Awaitable[bool]]
"""One call for a round's number; answers whether it was partial."""


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything on one stack."""
    with workspace() as directory:
        settings = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")
        async with EmbeddedStack(directory / "data", settings) as stack:
            big, middle = await _planted(stack, arguments.links, arguments.degree), "middle"
            if arguments.links == TENANT_LINKS:
                middle = big
            else:
                await _planted(stack, TENANT_LINKS, arguments.degree, name=middle)
            report = {
                "links": arguments.links,
                "one hop": await _one_hop(stack, big, arguments),
                "three hops": await _deep(stack, middle, arguments, hops=True),
                "path of six": await _deep(stack, middle, arguments, hops=False),
            }
            report["ingest"] = await _ingest(stack)
            return report


async def _planted(stack: EmbeddedStack, links: int, degree: int, *, name: str = "big") -> str:
    admin = [("authorization", f"Bearer {stack.development_key}")]
    async with grpc.aio.insecure_channel(stack.memory_address) as channel:
        tenants = tenant_rpc.TenantServiceStub(channel)
        made = tenant_pb.CreateTenantRequest(tenant=tenant_pb.TenantRecord(tenant=name))
        await tenants.CreateTenant(made, metadata=admin, timeout=20)
    tenant = admin_tenant(name, reason="bench")
    await plant(stack.stores.postgres_admin_url, tenant, links // degree, RANDOM, each=degree)
    return name


async def _one_hop(stack: EmbeddedStack, tenant: str, arguments: argparse.Namespace) -> dict[str, Any]:
    nodes = _nodes(arguments.links // arguments.degree, arguments.rounds)
    async with _agent(stack, tenant) as (graph, call), _by_hand(stack) as connection:
        size = 0

        async def served(number: int) -> bool:
            nonlocal size
            size, partial = 0, False
            frames: Any = graph.Neighbors(pb.NeighborsRequest(target=_named(nodes[number])), **call)
            async for frame in frames:
                size += frame.ByteSize()
                partial = bool(frame.summary.partial)
            return partial

        async def bare(number: int) -> bool:
            await connection.fetch(ONE_HOP, tenant, nodes[number])
            return False

        await served(0)
        async with _no_op_server(size) as stream:

            async def nothing(number: int) -> bool:
                async for _ in stream(b"", timeout=20):
                    pass
                return False

            times = await _timed({"served": served, "bare SQL": bare, "no-op stream": nothing}, arguments.rounds)
    floor = times["bare SQL"]["p50_ms"] + times["no-op stream"]["p50_ms"]
    return {**times, "ratio": times["served"]["p50_ms"] / floor}


async def _deep(stack: EmbeddedStack, tenant: str, arguments: argparse.Namespace, *, hops: bool) -> dict[str, Any]:
    rounds = max(10, arguments.rounds // 10)
    nodes = _nodes(TENANT_LINKS // arguments.degree, rounds + 1)
    async with _agent(stack, tenant) as (graph, call), _by_hand(stack) as connection:

        async def served(number: int) -> bool:
            source, target = _named(nodes[number]), _named(nodes[number + 1])
            frames: Any
            if hops:
                frames = graph.Neighbors(pb.NeighborsRequest(target=source, k_hop=3), **call)
            else:
                frames = graph.FindPath(pb.FindPathRequest(source=source, target=target, max_length=6), **call)
            partial = False
            async for frame in frames:
                partial = bool(frame.summary.partial)
            return partial

        async def bare(number: int) -> bool:
            if hops:
                await connection.fetch(THREE_HOPS, tenant, nodes[number])
            else:
                await connection.fetch(PATH, tenant, nodes[number], nodes[number + 1])
            return False

        times = await _timed({"served": served, "bare SQL": bare}, rounds)
    return {**times, "ratio": times["served"]["p50_ms"] / times["bare SQL"]["p50_ms"]}


async def _ingest(stack: EmbeddedStack) -> dict[str, Any]:
    """Links a second through ImportRecords, until the last is acknowledged, and by plain inserts."""
    tenant = admin_tenant("ingest", reason="bench")
    count = INGESTED // 4
    admin_url = stack.stores.postgres_admin_url
    await plant(admin_url, tenant, count, "SELECT {id}, {next}, 1.0 FROM generate_series(1, $2::int) AS n WHERE n < 0")
    ends = [(memory_id(n % count + 1), memory_id((n * 7919 + n // count + 1) % count + 1)) for n in range(INGESTED)]
    pairs = [pair for pair in dict.fromkeys(ends) if pair[0] != pair[1]]
    records = [
        batch_pb.Record(link=pb.MemoryLink(source_id=a, target_id=b, relation="imported", strength=0.5))
        for a, b in pairs
    ]
    async with SomaClient.connect(stack.memory_address, key=stack.development_key) as administrator:
        await administrator.tenants.create(tenant.name)
        key = (await administrator.tenants.create_key(tenant.name)).bearer
    async with SomaClient.connect(stack.memory_address, key=key) as soma:
        job = await soma.create_import()
        started = time.perf_counter()
        done = await soma.import_records(job.import_id, records)
        ours = len(pairs) / (time.perf_counter() - started)
        assert done.stored == len(pairs), done
    async with _by_hand(stack) as connection:
        insert = (
            "INSERT INTO links (tenant, source_id, target_id, relation, strength, version, created_at, updated_at)"
            " SELECT $1, s, t, 'plain', 0.5, 1, now(), now() FROM unnest($2::uuid[], $3::uuid[]) AS p (s, t)"
        )
        started = time.perf_counter()
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            await connection.execute(insert, tenant.name, [a for a, _ in chunk], [b for _, b in chunk])
        plain = len(pairs) / (time.perf_counter() - started)
    return {"links_per_s": ours, "plain_inserts_per_s": plain, "ratio": plain / ours}


async def _timed(calls: dict[str, Call], rounds: int) -> dict[str, Any]:
    """Every way in turn, round after round, so that a busy moment is shared; the first round does not count."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    partial = dict.fromkeys(calls, 0)
    for number in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            partial[name] += await call(number)
            took[name].append((time.perf_counter() - started) * 1000)
    return {
        name: {
            "p50_ms": statistics.median(times[1:]),
            "p95_ms": statistics.quantiles(times[1:], n=20)[-1],
            "partial": partial[name] / rounds,
        }
        for name, times in took.items()
    }


@contextlib.asynccontextmanager
async def _agent(stack: EmbeddedStack, tenant: str) -> AsyncIterator[tuple[rpc.GraphServiceStub, dict[str, Any]]]:
    admin = [("authorization", f"Bearer {stack.development_key}")]
    async with grpc.aio.insecure_channel(stack.memory_address) as channel:
        request = tenant_pb.CreateKeyRequest(tenants=[tenant])
        key = (await tenant_rpc.TenantServiceStub(channel).CreateKey(request, metadata=admin, timeout=20)).bearer
        yield rpc.GraphServiceStub(channel), {"metadata": [("authorization", f"Bearer {key}")], "timeout": 20}


@contextlib.asynccontextmanager
async def _by_hand(stack: EmbeddedStack) -> AsyncIterator[asyncpg.Connection]:
    connection: asyncpg.Connection = await asyncpg.connect(stack.stores.postgres_admin_url)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _no_op_server(size: int) -> AsyncIterator[Any]:
    """A server of its own process whose stream answers so many bytes in two messages."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.graph", "--no-op", str(size), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.unary_stream(_NO_OP)
    finally:
        process.kill()
        await process.wait()


async def _serve_nothing(size: int) -> None:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield bytes(size)
        yield b""

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(stream)
    service, method = _NO_OP.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def _nodes(count: int, rounds: int) -> list[str]:
    chosen = random.Random(1)
    return [memory_id(chosen.randrange(count) + 1) for _ in range(rounds)]


def _named(memory: str) -> common.MemoryTarget:
    return common.MemoryTarget(memory_id=memory)


def _holds(report: dict[str, Any]) -> bool:
    return bool(report["one hop"]["ratio"] <= RATIO_CEILING and report["ingest"]["links_per_s"] >= INGEST_FLOOR)


def _print(report: dict[str, Any]) -> None:
    for name in ("one hop", "three hops", "path of six"):
        print(f"{name}: ratio {report[name]['ratio']:.2f}")
        for way, speed in report[name].items():
            if way != "ratio":
                told = f"p50 {speed['p50_ms']:.2f} ms, p95 {speed['p95_ms']:.2f} ms, partial {speed['partial']:.0%}"
                print(f"    {way:14} {told}")
    ingest = report["ingest"]
    print(f"ingest: {ingest['links_per_s']:.0f} links/s, plain inserts {ingest['plain_inserts_per_s']:.0f}/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=1_000_000, help="of the tenant that one hop is measured in")
    parser.add_argument("--degree", type=int, default=5, help="links that each memory starts")
    parser.add_argument("--rounds", type=int, default=200, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--no-op", type=int, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.no_op is not None:
        asyncio.run(_serve_nothing(given.no_op))
        sys.exit(0)
    result = asyncio.run(main(given))
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    sys.exit(0 if _holds(result) else 1)

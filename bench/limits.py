"""What one process does, and how large one memory is: the figures that docs/scaling.md counts with.

    ./dev bench limits [--memories 4000] [--seconds 4] [--callers 32]

Starts the real stores, a memory server and a brain, stores memories of 400 characters of text without repetition,
waits until they are indexed, and prints: calls a second of each kind with so many callers and the processor time that
the server spends on one; rows indexed a second, embedding included, and what embedding a text takes by itself; and
bytes a memory in each table of Postgres, its indexes included.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import grpc
import psutil

from bench.places import workspace
from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.batch.v1 import batch_service_pb2 as batch_pb
from soma.batch.v1 import batch_service_pb2_grpc as batch_rpc
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.embedders import Priority
from soma_contract.embedders.local import LocalEmbedder
from soma_embedded.stack import EmbeddedStack, StackSettings

BATCH = 200
_SYLLABLES = "ka lo mi ne ru sa to vi we zu bra den fel gor hin jas".split()  # noqa: SIM905 - easier to read

Metadata = tuple[tuple[str, str], ...]


def text(chosen: random.Random, characters: int = 400) -> str:
    """Words that never were, up to so many characters."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) < characters:
        words.append("".join(chosen.choices(_SYLLABLES, k=chosen.randint(1, 4))))
    return " ".join(words)[:characters]


async def rate(call: Callable[[], Awaitable[object]], pid: int, callers: int, seconds: float) -> tuple[float, float]:
    """Calls a second of so many callers, and the server's processor seconds for each."""
    process, done = psutil.Process(pid), 0
    spent = process.cpu_times()
    start = time.perf_counter()

    async def again() -> None:
        nonlocal done
        while time.perf_counter() - start < seconds:
            await call()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(again())
    took_s, after = time.perf_counter() - start, process.cpu_times()
    return done / took_s, (after.user + after.system - spent.user - spent.system) / done


async def fill(
    channel: grpc.aio.Channel, metadata: Metadata, memories: int, chosen: random.Random
) -> tuple[str, float]:
    """Store memories and wait for the index; returns the id of one and rows a second, embedding included."""
    batch, operator = batch_rpc.BatchServiceStub(channel), operator_rpc.OperatorServiceStub(channel)
    start, memory_id = time.perf_counter(), ""
    for _ in range(0, memories, BATCH):
        items = [pb.RememberRequest(memory=memory_pb2.Memory(text=text(chosen))) for _ in range(BATCH)]
        answer = await batch.RememberBatch(batch_pb.RememberBatchRequest(items=items), metadata=metadata, timeout=60)
        memory_id = answer.items[0].remembered.memory.memory_id
    request = operator_pb.GetIndexStatusRequest()
    while (await operator.GetIndexStatus(request, metadata=metadata, timeout=60)).pending_rows:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return memory_id, memories / (time.perf_counter() - start)


async def embedding_s(chosen: random.Random, count: int) -> float:
    """Processor seconds of this process for the embedding of one text by the local model, in batches."""
    texts = [text(chosen) for _ in range(count)]
    async with LocalEmbedder() as embedder:
        await embedder.embed(texts[:8], priority=Priority.BULK)
        before = time.process_time()
        await embedder.embed(texts, priority=Priority.BULK)
        return (time.process_time() - before) / count


async def sizes(url: str, memories: int) -> dict[str, float]:
    """Bytes a memory in each table with its indexes; partitions count for their table."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM ANALYZE")
        rows = await connection.fetch(
            "SELECT coalesce(i.inhparent, c.oid)::regclass::text AS name, sum(pg_total_relation_size(c.oid)) AS bytes "
            "FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid "
            "WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1"
        )
    finally:
        await connection.close()
    found = {str(row["name"]): float(row["bytes"]) / memories for row in rows}
    return {name: each for name, each in sorted(found.items(), key=lambda one: -one[1]) if each >= 1}


async def measure(memories: int, seconds: float, callers: int) -> None:
    """Measure and print everything."""
    chosen = random.Random(1)
    async with AsyncExitStack() as stack:
        path = stack.enter_context(workspace())
        settings = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")
        running = await stack.enter_async_context(EmbeddedStack(path / "data", settings))
        metadata = (("authorization", f"Bearer {running.development_key}"),)
        server = await stack.enter_async_context(grpc.aio.insecure_channel(running.memory_address))
        brain = await stack.enter_async_context(grpc.aio.insecure_channel(running.brain_address))
        memory_id, indexed = await fill(server, metadata, memories, chosen)
        print(f"indexed, embedding included: {indexed:.0f} memories/s")
        print(f"embedding of one text by itself: {await embedding_s(chosen, 128) * 1e3:.1f} ms of a processor")
        queries = [text(chosen, 60) for _ in range(64)]

        async def get(stub: Any) -> None:
            await stub.Get(pb.GetRequest(target=common.MemoryTarget(memory_id=memory_id)), metadata=metadata)

        async def remember(stub: Any) -> None:
            request = pb.RememberRequest(memory=memory_pb2.Memory(text=text(chosen)))
            await stub.Remember(request, metadata=metadata)

        async def recall(stub: Any) -> None:
            request = pb.RecallRequest(text=chosen.choice(queries), limit=10)
            async for _ in stub.Recall(request, metadata=metadata):
                pass

        per_memory = await sizes(running.stores.environment()["SOMA_POSTGRES_ADMIN_URL"], memories)
        for name, channel in (("memory", server), ("brain", brain)):
            stub = rpc.MemoryServiceStub(channel)
            for what, call in (("Get", get), ("Recall", recall), ("Remember", remember)):
                await call(stub)
                pid = running.pids[name]
                assert pid is not None
                found, spent_s = await rate(lambda call=call, stub=stub: call(stub), pid, callers, seconds)  # type: ignore[misc]
                print(f"{name:<7} {what:<9} {found:>6.0f} calls/s  {spent_s * 1e3:>6.2f} ms of the server's processor")
        for table, each in per_memory.items():
            print(f"postgres {table:<20} {each:>6.0f} bytes a memory")
        print(f"postgres {'in all':<20} {sum(per_memory.values()):>6.0f} bytes a memory")


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, default=4_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each kind of call")
    parser.add_argument("--callers", type=int, default=32)
    chosen = parser.parse_args(arguments)
    print(f"load average before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, shared with the caller")
    asyncio.run(measure(chosen.memories, chosen.seconds, chosen.callers))
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The brain beside what it stands on: each figure next to its yardstick, measured in turns in one run.

    ./dev bench brain [--rounds 300] [--observations 20000] [--sessions 1000] [--only NAME ...]

working-recall  Recall of working memory alone, query vector given, p50, beside a bare gRPC server that streams the
                same messages
observe         observations a second on one stream: with vectors supplied; without, beside the bare embedder
remember        Remember through the outbox beside the same write with if_absent, which goes past it
recall          Recall through the brain beside the same Recall at the memory server
memory          resident memory of a brain with full sessions, without an embedding model
Prints the CPU of the brain too where the clock depends on what else the machine does. Exits 1 when a floor is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench.no_op import no_op_server
from bench.places import workspace
from bench.sessions import (
    ITEMS,
    WARM,
    WORDS,
    Figure,
    Place,
    cpu_s,
    fill,
    in_turns,
    observe_all,
    sentence,
    vectors,
    with_vectors,
)
from soma.common.v1 import types_pb2
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma.memory.v1 import working_memory_service_pb2 as wm_pb
from soma.memory.v1 import working_memory_service_pb2_grpc as wm_rpc
from soma_contract.embedders import Priority
from soma_contract.embedders.local import LocalEmbedder
from soma_embedded.child import Child
from soma_embedded.directory import DataDirectory
from soma_embedded.ports import LOOPBACK, free_port
from soma_embedded.servers import SomaServer
from soma_embedded.stack import EmbeddedStack, StackSettings

SETTINGS = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")
TURNS = 3


async def working_recall(place: Place, arguments: argparse.Namespace) -> AsyncIterator[Figure]:
    """Recall of working memory alone."""
    rounds, metadata = arguments.rounds, place.session("recalled")
    await observe_all(place, with_vectors(ITEMS), "recalled")
    stub = rpc.MemoryServiceStub(place.brain)
    queries = [
        pb.RecallRequest(
            embedding=types_pb2.Vector(packed_f32=vector.tobytes()), legs=[pb.RECALL_LEG_WORKING], limit=10
        )
        for vector in vectors(rounds + WARM)
    ]

    async def ours(number: int) -> list[pb.RecallResponse]:
        answers: Any = stub.Recall(queries[number], metadata=metadata)
        return [frame async for frame in answers]

    frames = await ours(0)
    if len(frames) != 11:
        raise RuntimeError(f"working memory answered {len(frames)} frames")
    async with no_op_server(frames) as bare:

        async def theirs(number: int) -> list[pb.RecallResponse]:
            return [frame async for frame in bare.recall(queries[number], metadata=metadata)]

        before = place.brain_cpu_s(), cpu_s(bare.pid)
        own, other = await in_turns(rounds, ours, theirs)
        after = place.brain_cpu_s(), cpu_s(bare.pid)
    spent = [(late - early) / (rounds + WARM) * 1e3 for early, late in zip(before, after, strict=True)]
    told = f"{own:8.2f} ms   no-op stream {other:6.2f} ms   ratio {own / other:.2f}   floor 1.60"
    yield Figure("working recall", f"{told}   CPU {spent[0]:.2f} and {spent[1]:.2f} ms", own / other <= 1.6)


async def observing(place: Place, arguments: argparse.Namespace) -> AsyncIterator[Figure]:
    """Observations a second."""
    count = arguments.observations
    observations = with_vectors(count)
    used = place.brain_cpu_s()
    rate = statistics.median(
        [count / await observe_all(place, observations, f"supplied-{turn}") for turn in range(TURNS)]
    )
    each_us = (place.brain_cpu_s() - used) / (TURNS * count) * 1e6
    told = f"{rate:8.0f} /s   brain CPU {each_us:.0f} us each   floor 5,000"
    yield Figure("observe, vectors supplied", told, rate >= 5_000)
    few = max(64, count // 40)
    texts = [sentence(10**6 + number) for number in range(2 * few)]
    pairs = []
    async with LocalEmbedder() as embedder:
        await embedder.embed(texts[:8], priority=Priority.BULK)
        for turn in range(TURNS):
            started = time.perf_counter()
            await embedder.embed([f"{turn} {text}" for text in texts[:few]], priority=Priority.BULK)
            bare = few / (time.perf_counter() - started)
            observations = [
                wm_pb.Observation(sequence=number, text=f"{turn} {text}")
                for number, text in enumerate(texts[few:], start=1)
            ]
            pairs.append((few / await observe_all(place, observations, f"embedded-{turn}"), bare))
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    told = f"{ours:8.0f} /s   bare embedder {bare:6.0f} /s   ratio {ratio:.2f}   floor 0.70"
    yield Figure("observe, texts alone", told, ratio >= 0.7)


async def remembering(place: Place, arguments: argparse.Namespace) -> AsyncIterator[Figure]:
    """What the outbox adds to a write."""
    stub, metadata = rpc.MemoryServiceStub(place.brain), (place.key,)

    def request(number: int, *, if_absent: bool) -> pb.RememberRequest:
        return pb.RememberRequest(memory=memory_pb2.Memory(text=sentence(number)), if_absent=if_absent)

    async def through(number: int) -> None:
        await stub.Remember(request(number, if_absent=False), metadata=metadata)

    async def past(number: int) -> None:
        await stub.Remember(request(number, if_absent=True), metadata=metadata)

    own, other = await in_turns(arguments.rounds, through, past)
    told = f"{own:8.2f} ms   past the outbox {other:6.2f} ms   adds {own - other:+.2f} ms   floor +0.50"
    yield Figure("remember", told, own - other <= 0.5)


async def recalling(place: Place, arguments: argparse.Namespace) -> AsyncIterator[Figure]:
    """What the brain adds to a recall."""
    memory, brain, metadata = rpc.MemoryServiceStub(place.memory), rpc.MemoryServiceStub(place.brain), (place.key,)
    for number in range(500):
        text = sentence(2 * 10**6 + number)
        await memory.Remember(pb.RememberRequest(memory=memory_pb2.Memory(text=text)), metadata=metadata)

    def asking(stub: rpc.MemoryServiceStub) -> Callable[[int], Awaitable[object]]:
        async def ask(number: int) -> list[pb.RecallResponse]:
            request = pb.RecallRequest(text=f"which note speaks of {WORDS[number % len(WORDS)]} {number}?")
            frames: Any = stub.Recall(request, metadata=metadata)
            return [frame async for frame in frames]

        return ask

    # The embedding of a query is kept: who asks first pays for it, so each takes its turn to be first.
    first, second = await in_turns(arguments.rounds // 2, asking(brain), asking(memory))
    later, sooner = await in_turns(arguments.rounds // 2, asking(memory), asking(brain))
    own, other = (first + sooner) / 2, (second + later) / 2
    told = f"{own:8.2f} ms   memory server {other:6.2f} ms   ratio {own / other:.2f}   floor 1.40"
    yield Figure("recall", told, own / other <= 1.4)


async def resident(directory: Path, stack: EmbeddedStack, sessions: int) -> Figure:
    """Memory of a brain whose sessions are all full, without a model."""
    place = DataDirectory(directory / "full")
    with place.hold():
        await fill(place.place("brain"), sessions)
        port = free_port()
        environment = {
            "SOMA_BRAIN_ADDRESS": f"{LOOPBACK}:{port}",
            "SOMA_BRAIN_MEMORY_TARGET": stack.memory_address,
            "SOMA_DATA_DIR": str(place.place("brain")),
            "SOMA_SERVICE_CREDENTIAL_FILE": str(stack.directory.place("secrets") / "brain.key"),
            "SOMA_EMBEDDER": "hashing",
            "SOMA_TESTING": "1",
        }
        child = Child(SomaServer("brain", "brain_server", place, port, environment, stop_grace_s=10.0), place)
        await child.start()
        try:
            async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
                stub = wm_rpc.WorkingMemoryServiceStub(channel)
                started = time.perf_counter()
                for number in range(sessions):
                    metadata = [("authorization", f"Bearer {stack.development_key}"), ("soma-session", f"s{number}")]
                    answer = await stub.ListItems(wm_pb.ListItemsRequest(page_size=1), metadata=metadata)
                    if answer.item_count != ITEMS:
                        raise RuntimeError(f"session {number} has {answer.item_count} items")
                took_s = time.perf_counter() - started
            megabytes = psutil.Process(child.pid).memory_info().rss / 2**20
        finally:
            await child.stop()
    told = f"{megabytes:8.0f} MB   {sessions} sessions of {ITEMS}, all touched in {took_s:.1f} s   floor 400"
    return Figure("memory", told, megabytes < 400)


MEASUREMENTS = {
    "working-recall": working_recall,
    "observe": observing,
    "remember": remembering,
    "recall": recalling,
}


async def measure(arguments: argparse.Namespace) -> bool:
    """Measure on a stack of its own; print as it goes; say whether every floor holds."""
    holds = True
    with workspace() as directory:
        async with (
            EmbeddedStack(directory / "data", SETTINGS) as stack,
            grpc.aio.insecure_channel(stack.brain_address) as brain,
            grpc.aio.insecure_channel(stack.memory_address) as memory,
        ):
            place = Place(stack, brain, memory)
            for name, measurement in MEASUREMENTS.items():
                if name in arguments.only:
                    async for figure in measurement(place, arguments):
                        holds = told(figure) and holds
            if "memory" in arguments.only:
                holds = told(await resident(directory, stack, arguments.sessions)) and holds
    return holds


def told(figure: Figure) -> bool:
    """Print a figure; return whether its floor holds."""
    print(f"{figure.name:28}{figure.told}{'' if figure.holds else '   MISSED'}", flush=True)
    return figure.holds


def main() -> int:
    """Parse the arguments, measure, print."""
    names = [*MEASUREMENTS, "memory"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="calls of each kind")
    parser.add_argument("--observations", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
    return 0 if asyncio.run(measure(arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())

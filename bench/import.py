"""How fast imports are, as ratios to what one would write by hand, in one run.

    ./dev bench import [--records 20000] [--texts 2000] [--large 0] [--json FILE]

With vectors: records durable a second, beside COPY into a bare table and beside a staged insert by hand (floor 0.5),
and searchable a second, beside inserts into the index alone (floor 0.5). Without vectors: searchable a second, beside
the embedder alone (floor 0.85). Processor time a record says what wall time on a busy machine does not. Meanwhile the
memory server's growth (ceiling 150 MB) and recalls of another tenant, p95 beside that of the quiet server (ceiling 5).
``--large`` imports so many more records for the growth alone.
Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from bench.corpus import questions
from bench.imports_floors import copy_rate, embedder_rate, index_rate, records, staged_rate
from bench.places import workspace
from soma.batch.v1 import batch_service_pb2 as pb
from soma_client import SomaClient
from soma_client.importer import Importer
from soma_client.sources import Item, Listed
from soma_contract.recall import Preset, RecallQuery
from soma_embedded import EmbeddedStack, StackSettings

QUIET_RECALLS = 150
QUIET_MEMORIES = 2_000
FLOORS = {
    "durable to staged insert": 0.5,
    "searchable to index": 0.5,
    "searchable texts to embedder": 0.85,
}
CEILINGS = {"memory server grew MB": 150.0, "recall p95 to quiet": 5.0}


class Generated:
    """A source of so many records that are made as they are read, so that this process stays small too."""

    name = "generated"

    def __init__(self, count: int) -> None:
        self.size = count

    def reached(self, at: tuple[int, ...]) -> int:
        """Records before a place."""
        return at[0] if at else 0

    def fingerprint(self) -> str:
        """Its length says all."""
        return str(self.size)

    def items(self, at: tuple[int, ...] = ()) -> Iterator[Item]:
        """Records; only ever from the first."""
        for number, record in enumerate(records(self.size, "large")):
            yield Item(record, str(number), (number + 1,))

    def record(self, value: object) -> pb.Record:
        """As it is."""
        assert isinstance(value, pb.Record)
        return value


@dataclass(slots=True)
class Growth:
    """The most memory a process holds while this runs, beyond what it held before."""

    process: psutil.Process
    before_mb: float = 0.0
    most_mb: float = 0.0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look four times a second."""
        self.before_mb = self.most_mb = self._rss()

        async def look() -> None:
            while True:
                self.most_mb = max(self.most_mb, self._rss())
                await asyncio.sleep(0.25)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()

    def _rss(self) -> float:
        return float(self.process.memory_info().rss) / 2**20


@dataclass(slots=True)
class Recalls:
    """Recalls one after the other, with a little rest between."""

    soma: SomaClient
    took_ms: list[float] = field(default_factory=list)

    async def ask(self, count: int) -> None:
        """So many recalls."""
        texts = questions(QUIET_RECALLS)
        for number in range(count):
            began = time.perf_counter()
            await self.soma.recall_all(RecallQuery(text=texts[number % len(texts)], preset=Preset.FAST))
            self.took_ms.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.02)

    @property
    def p95(self) -> float:
        """In ms; 0 for none."""
        return float(np.percentile(self.took_ms, 95)) if self.took_ms else 0.0


async def main(arguments: argparse.Namespace) -> dict[str, float]:
    """Everything on one stack."""
    figures: dict[str, float] = {"load average before": os.getloadavg()[0]}
    settings = StackSettings(memory_address="127.0.0.1:0", brain_address="127.0.0.1:0")
    with workspace() as directory:
        async with (
            EmbeddedStack(directory / "data", settings) as stack,
            SomaClient.connect(stack.memory_address, key=stack.development_key) as admin,
        ):
            await measured(stack, admin, arguments, figures)
    figures["load average after"] = os.getloadavg()[0]
    return figures


async def measured(
    stack: EmbeddedStack, admin: SomaClient, arguments: argparse.Namespace, figures: dict[str, float]
) -> None:
    """Fill ``figures``."""
    wires = list(records(arguments.records, "vectors"))
    memory_server = psutil.Process(stack.pids["memory"])
    async with tenant(stack, admin, "quiet") as quiet:
        await imported(quiet, list(records(QUIET_MEMORIES, "quiet")))
        await Recalls(quiet).ask(QUIET_RECALLS)  # queries' vectors are remembered from here on
        alone = Recalls(quiet)
        await alone.ask(QUIET_RECALLS)

        async with tenant(stack, admin, "vectors") as soma:
            meanwhile = Recalls(quiet)
            recalling = asyncio.create_task(meanwhile.ask(10**9))
            growth = Growth(memory_server)
            async with growth.watched():
                figures["durable/s, indexing"], figures["searchable/s"] = await imported(soma, wires)
            recalling.cancel()
    figures["recall p95 ms, quiet"], figures["recall p95 ms, importing"] = alone.p95, meanwhile.p95
    figures["recall p95 to quiet"] = meanwhile.p95 / alone.p95
    figures["memory server grew MB"] = growth.most_mb - growth.before_mb
    figures["index alone/s"] = await index_rate(stack, wires, "soma_memories")
    figures["searchable to index"] = figures["searchable/s"] / figures["index alone/s"]

    await admin.operator.pause_indexer(max_pause_s=600)
    turns, spent = [], {"memory": 0.0, "postgres": 0.0, "this": 0.0}
    for turn in range(arguments.rounds):
        async with tenant(stack, admin, f"durable-{turn}") as soma:
            before = processor_s(stack)
            ours = await durable(soma, wires)
            spent = {name: spent[name] + after - before[name] for name, after in processor_s(stack).items()}
        turns.append((await copy_rate(stack, wires), await staged_rate(stack, wires, f"staged-{turn}"), ours))
    for name, seconds in spent.items():
        figures[f"processor us/record, {name}"] = seconds / arguments.rounds / len(wires) * 1e6
    copied, staged, ours = (float(np.median(column)) for column in zip(*turns, strict=True))
    figures |= {"COPY/s": copied, "staged insert/s": staged, "durable/s": ours}
    figures["durable to staged insert"] = float(np.median([own / hand for _, hand, own in turns]))
    figures["durable to COPY"] = float(np.median([own / raw for raw, _, own in turns]))
    await admin.operator.pause_indexer(paused=False)
    await settled(admin)

    figures["embedder alone/s"] = await embedder_rate(arguments.texts)
    async with tenant(stack, admin, "texts") as soma:
        texts = list(records(arguments.texts, "texts", vectors=False))
        figures["durable texts/s"], figures["searchable texts/s"] = await imported(soma, texts)
    figures["searchable texts to embedder"] = figures["searchable texts/s"] / figures["embedder alone/s"]
    if arguments.large:
        async with tenant(stack, admin, "large") as soma:
            growth = Growth(memory_server)
            began = time.perf_counter()
            async with growth.watched():
                await Importer(soma, Generated(arguments.large)).run()
            figures["large import: records"] = arguments.large
            figures["large import: durable/s"] = arguments.large / (time.perf_counter() - began)
            figures["memory server grew MB"] = growth.most_mb - growth.before_mb


@contextlib.asynccontextmanager
async def tenant(stack: EmbeddedStack, admin: SomaClient, name: str) -> AsyncIterator[SomaClient]:
    """A client of a new tenant."""
    await admin.tenants.create(name)
    made = await admin.tenants.create_key(name)
    async with SomaClient.connect(stack.memory_address, key=made.bearer) as soma:
        yield soma


def processor_s(stack: EmbeddedStack) -> dict[str, float]:
    """Processor time spent so far by the memory server, Postgres and this process; other programs do not disturb it."""
    found = {"this": sum(psutil.Process().cpu_times()[:2])}
    for name in ("memory", "postgres"):
        process = psutil.Process(stack.pids[name])
        found[name] = 0.0
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found[name] += sum(each.cpu_times()[:2])
    return found


async def durable(soma: SomaClient, wires: list[pb.Record]) -> float:
    """Import, and say how many a second are durable."""
    began = time.perf_counter()
    job = await Importer(soma, Listed(wires)).run()
    if job.stored != len(wires):
        raise RuntimeError(f"{job.stored} of {len(wires)} stored")
    return len(wires) / (time.perf_counter() - began)


async def imported(soma: SomaClient, wires: list[pb.Record]) -> tuple[float, float]:
    """Import; returns (durable, searchable) a second."""
    began = time.perf_counter()
    importer = Importer(soma, Listed(wires))
    job = await importer.run()
    durable_s = time.perf_counter() - began
    while job.indexed < len(wires):
        await asyncio.sleep(0.05)
        job = await soma.get_import(importer.import_id)
    return len(wires) / durable_s, len(wires) / (time.perf_counter() - began)


async def settled(admin: SomaClient) -> None:
    """Wait until nothing waits to be indexed."""
    while (await admin.operator.index_status()).pending_rows:  # noqa: ASYNC110 - it does not tell
        await asyncio.sleep(0.5)


def verdict(figures: dict[str, float]) -> list[str]:
    """What lies beyond its limit."""
    low = [f"{name} {figures[name]:.2f}, floor {floor:g}" for name, floor in FLOORS.items() if figures[name] < floor]
    high = [f"{name} {figures[name]:.1f}, ceiling {top:g}" for name, top in CEILINGS.items() if figures[name] > top]
    return low + high


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000, help="with vectors")
    parser.add_argument("--texts", type=int, default=2_000, help="without vectors")
    parser.add_argument("--rounds", type=int, default=3, help="of durable, staged and COPY, in turns; medians count")
    parser.add_argument("--large", type=int, default=0, help="records of the import that is watched for growth")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    ARGUMENTS = parser.parse_args()
    FIGURES = asyncio.run(main(ARGUMENTS))
    for name, value in FIGURES.items():
        print(f"{name:32} {value:12.2f}")
    if ARGUMENTS.json:
        ARGUMENTS.json.write_text(json.dumps(FIGURES, indent=2) + "\n")
    BEYOND = verdict(FIGURES)
    print("\n".join(BEYOND) if BEYOND else "all within their limits")
    sys.exit(1 if BEYOND else 0)

"""One import while its connection is cut and the memory server is killed, and what must be true afterwards.

    python -m tests.adversity.stack.broken_imports [--records 100000] [--cuts 60] [--kills 5]

Every hundredth record is wrong. Prints what happened as one JSON object; exits 1 if a record was lost, stored twice or
changed, or if the refusals are not those of the wrong records.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from soma.batch.v1 import batch_service_pb2 as pb
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma_client import SomaClient
from soma_client.importer import Importer, ImportProgress
from soma_client.sources import Item
from soma_client.watcher import Watcher
from soma_contract.ids import foreign_memory_id
from soma_embedded.stack import EmbeddedStack
from tests.support.fault_proxy import FaultProxy
from tests.support.stack import RANDOM_PORTS, Office, opened
from tests.support.stores import data_directory

DIMENSION = 384
WRONG_EVERY = 100


class Numbered:
    """A source of so many records, each made from its number."""

    name = "numbered"

    def __init__(self, count: int) -> None:
        self.size = count

    def reached(self, at: tuple[int, ...]) -> int:
        """Records before a place."""
        return at[0] if at else 0

    def fingerprint(self) -> str:
        """Its length says all."""
        return f"numbered {self.size}"

    def items(self, at: tuple[int, ...] = ()) -> Iterator[Item]:
        """Numbers from a place on."""
        for number in range(self.reached(at), self.size):
            yield Item(number, str(number), (number + 1,))

    def record(self, value: object) -> pb.Record:
        """The record of a number, as an export gives it back; wrong ones cannot be stored."""
        assert isinstance(value, int)
        if is_wrong(value):
            return pb.Record(memory=memory_pb2.Memory(text="wrong", payload_json="{"))
        return pb.Record(memory=a_memory(value))


def is_wrong(number: int) -> bool:
    """Whether the record of a number is wrong."""
    return number % WRONG_EVERY == WRONG_EVERY // 2


def a_memory(number: int) -> memory_pb2.Memory:
    """The memory of a number, with a vector and everything a server would add but the coordinate."""
    # Of length one, as vectors are kept.
    vector = np.random.default_rng(number).normal(size=DIMENSION).astype("<f4")
    wire = memory_pb2.Memory(
        memory_id=foreign_memory_id("numbered", str(number)),
        namespace="default",
        kind=memory_pb2.KIND_SEMANTIC,
        text=f"record {number} of a long import",
        payload_json=f'{{"number":{number}}}',
        tags=[f"t{number % 7}"],
        version=1,
        embedding=common.Vector(packed_f32=(vector / np.linalg.norm(vector)).tobytes()),
        embedding_model="numbers",
    )
    wire.create_time.FromSeconds(1_700_000_000 + number)
    wire.update_time.FromSeconds(1_700_000_000 + number)
    return wire


@dataclass(slots=True)
class Verdict:
    """What is wrong after an import; all of it empty is right."""

    missing: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    """Ids that the changelog has more than once."""
    refusals: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not any(asdict(self).values())


@dataclass(slots=True)
class Happened:
    """What was done to an import."""

    records: int
    cuts: int = 0
    kills: int = 0
    reconnects: int = 0
    seconds: float = 0.0
    stored: int = 0
    refused: int = 0


@dataclass(slots=True)
class Nemesis:
    """Cuts the connection and kills the memory server, evenly over the import."""

    office: Office
    proxy: FaultProxy
    happened: Happened
    cuts: int
    kills: int
    _killing: list[asyncio.Task[None]] = field(default_factory=list)

    def see(self, at: ImportProgress) -> None:
        """Do what is due; called with every acknowledgement."""
        due = at.committed / max(1, self.happened.records)
        if self.happened.kills < self.kills and due >= (self.happened.kills + 1) / (self.kills + 1):
            self.happened.kills += 1
            self._killing.append(asyncio.ensure_future(self.office.stack.kill("memory")))
        elif self.happened.cuts < self.cuts and due >= (self.happened.cuts + 0.5) / (self.cuts + 1):
            self.happened.cuts += 1
            self.proxy.cut()

    async def done(self) -> None:
        """Wait until what was killed runs again."""
        await asyncio.gather(*self._killing)
        await self.office.stack.ready("memory")


async def broken_import(
    office: Office,
    count: int,
    *,
    cuts: int,
    kills: int,
    chunk_records: int,
    importer_class: type[Importer] = Importer,
) -> tuple[Happened, Verdict]:
    """Import through a proxy before the brain, then hold what is there against what was sent."""
    happened = Happened(count)
    agent = await office.agent()
    key = dict(agent.metadata)["authorization"].removeprefix("Bearer ")
    host, _, port = office.stack.brain_address.rpartition(":")
    source = Numbered(count)
    async with FaultProxy(host, int(port)) as proxy:
        nemesis = Nemesis(office, proxy, happened, cuts, kills)
        async with SomaClient.connect(f"127.0.0.1:{proxy.port}", key=key, own_connection=True) as shaky:
            importer = importer_class(shaky, source, on_progress=nemesis.see, chunk_records=chunk_records)
            began = time.monotonic()
            job = await importer.run()
            happened.seconds = round(time.monotonic() - began, 1)
        await nemesis.done()
    happened.stored, happened.refused, happened.reconnects = job.stored, job.refused, importer.progress.reconnects
    async with SomaClient.connect(office.stack.memory_address, key=key) as direct:
        await direct.ready(30)
        return happened, await judged(direct, source, job)


async def judged(soma: SomaClient, source: Numbered, job: pb.ImportJob) -> Verdict:
    """Compare an export, the changelog and the refusals with the source."""
    verdict, seen, revision = Verdict(), set[int](), 0
    async for frame in soma.export_records(include_embeddings=True):
        revision = frame.revision
        for record in frame.records:
            memory = record.memory
            memory.ClearField("coordinate")
            number = json.loads(memory.payload_json)["number"]
            if number in seen or memory.memory_id != foreign_memory_id("numbered", str(number)):
                verdict.strange.append(memory.memory_id)
            elif memory != source.record(number).memory:
                verdict.changed.append(number)
            seen.add(number)
    right = {number for number in range(source.size) if not is_wrong(number)}
    verdict.missing = sorted(right - seen)
    verdict.strange += [str(number) for number in sorted(seen - right)]
    stored = Counter[str]()
    watcher = Watcher(soma, 0, ids_only=True)
    async for change_set in watcher:
        stored.update(change.memory_stored.memory.memory_id for change in change_set.changes)
        if change_set.revision >= revision:
            break
    await watcher.aclose()
    verdict.repeated = [memory_id for memory_id, times in stored.items() if times > 1]
    refused = [each.offset async for each in soma.import_errors(job.import_id)]
    if refused != [number for number in range(source.size) if is_wrong(number)] or len(refused) != job.refused:
        verdict.refusals.append(f"{len(refused)} refusals, {job.refused} told")
    if (job.stored, job.skipped) != (len(right), 0):
        verdict.refusals.append(f"{job.stored} stored and {job.skipped} skipped told")
    return verdict


async def main(arguments: argparse.Namespace) -> int:
    """Run on a stack of its own."""
    with data_directory() as path:
        async with EmbeddedStack(path / "data", RANDOM_PORTS) as stack:
            office = await opened(stack)
            try:
                happened, verdict = await broken_import(
                    office,
                    arguments.records,
                    cuts=arguments.cuts,
                    kills=arguments.kills,
                    chunk_records=max(1, arguments.records // (arguments.cuts * 8)),
                )
            finally:
                await office.brain.close()
                await office.memory.close()
    wrong = {name: len(found) for name, found in asdict(verdict).items()}
    print(json.dumps({**asdict(happened), **wrong, "holds": verdict.holds}))
    return 0 if verdict.holds and (happened.cuts, happened.kills) == (arguments.cuts, arguments.kills) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--cuts", type=int, default=60)
    parser.add_argument("--kills", type=int, default=5)
    sys.exit(asyncio.run(main(parser.parse_args())))

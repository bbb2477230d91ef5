"""The scenario in Python: what the programs under clients/ do, each in its own words, and print line by line.

Numbers are printed as they travel: a double as the sixteen hexadecimal digits of its bits, a 64-bit integer in full,
a status code as its number. So a language that rounds, reorders or re-spells anything prints another transcript.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime
from typing import Any

from soma.batch.v1 import batch_service_pb2 as batch
from soma.common.v1 import errors_pb2
from soma.memory.v1 import memory_pb2
from soma_client import Kind, Memory, Remember, SomaClient, SomaError
from soma_client.import_run import ImportRun
from soma_client.record_feed import RecordFeed
from soma_contract.memory import Provenance, Target, Vector, View

ADA = Memory(
    key="polyglot.ada",
    kind=Kind.SEMANTIC,
    schema_type="UserPreference",
    text="Ada prefers tea – 茶 – over coffee ☕",
    payload_json='{"exact":9007199254740993,"ratio":5.0,"negative":-0.0,"quoted":"\\"\\u00e9\\""}',
    tags=("taste", "drink"),
    actor="Ada",
    session_id="s-1",
    sequence=9007199254740993,
    provenance=Provenance(author="Ada", source="chat", confidence=0.7),
    importance=0.1,
    relevance=0.3,
    occurred_at=datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC),
)
TRAIN = Memory(key="polyglot.train", text="The night train to Vienna leaves from platform nine")
GARDEN = Memory(key="polyglot.garden", text="Roses in the garden need water every second day")
VECTOR = Memory(
    key="polyglot.vector",
    text="A vector of the client's own",
    embedding=Vector.of([{0: 0.5, 1: -0.5, 200: 0.5, 383: -0.5}.get(place, 0.0) for place in range(384)]),
)
RECORDS = 300
REFUSED = 150
CHUNK = 20


def say(name: str, value: object) -> None:
    """One line of the transcript."""
    spelled = str(value).lower() if isinstance(value, bool) else value
    print(f"{name}: {spelled}")


def bits(number: float | None) -> str:
    """A double's bits."""
    if number is None:
        return "unset"
    return struct.pack(">d", number).hex()


def records() -> Iterator[batch.Record]:
    """What is imported: one record of it may not be stored."""
    for number in range(RECORDS):
        text = f"Line {number:03d} of a long book, " + "and so on " * 80
        memory = memory_pb2.Memory(key=f"import.{number:03d}", text=text)
        if number == REFUSED:
            memory.relevance = 1.5
        yield batch.Record(memory=memory)


async def refused(name: str, call: Awaitable[Any]) -> None:
    """Why a call is refused."""
    try:
        await call
    except SomaError as error:
        say(f"{name}.code", error.code.value)
        say(f"{name}.reason", error.reason)
        for key in sorted(error.metadata):
            say(f"{name}.metadata.{key}", error.metadata[key])
        for path, description in error.violations:
            say(f"{name}.field", f"{path}: {description}")
    else:
        say(f"{name}.code", 0)


async def remembering(soma: SomaClient) -> None:
    """Remember, and read back what must be the same."""
    for name in ("remember", "again"):
        stored = await soma.remember(ADA, timeout_s=30)
        say(f"{name}.memory_id", stored.memory.memory_id)
        say(f"{name}.durability", f"DURABILITY_{stored.durability.name}")
        say(f"{name}.created", stored.created)
        say(f"{name}.version", stored.memory.version)
    got = await soma.get(key=ADA.key, view=View.FULL, timeout_s=30)
    assert got.provenance is not None
    assert got.occurred_at is not None
    say("get.kind", f"KIND_{got.kind.name}")
    say("get.schema_type", got.schema_type)
    say("get.text", got.text)
    say("get.payload_json", got.payload_json)
    say("get.tags", "|".join(got.tags))
    say("get.actor", got.actor)
    say("get.session_id", got.session_id)
    say("get.sequence", got.sequence)
    say("get.provenance", f"{got.provenance.author}|{got.provenance.source}|{bits(got.provenance.confidence)}")
    say("get.importance", bits(got.importance))
    say("get.relevance", bits(got.relevance))
    say("get.occurred_time", f"{int(got.occurred_at.timestamp())}.{got.occurred_at.microsecond * 1000:09d}")
    say("get.coordinate", "|".join(bits(component) for component in got.coordinate or ()))


async def embedding(soma: SomaClient) -> None:
    """A vector of the client's own comes back bit by bit."""
    await soma.remember(VECTOR, timeout_s=30)
    got = await soma.get(key=VECTOR.key, view=View.FULL, timeout_s=30)
    packed = got.embedding.packed if got.embedding else b""
    say("vector.dimension", len(packed) // 4)
    say("vector.starts", packed[:12].hex())
    say("vector.ends", packed[-8:].hex())


async def recalling(soma: SomaClient) -> None:
    """Recall over a stream: hits, then one summary."""
    for memory in (TRAIN, GARDEN):
        await soma.remember(memory, timeout_s=30)
    stream = soma.recall("which platform does the night train leave from?", limit=10, timeout_s=30)
    hits = [hit.memory.key async for hit in stream]
    say("recall.best", hits[0])
    say("recall.keys", "|".join(sorted(hits)))
    say("recall.ends_with_summary", stream.summary is not None)
    say("recall.legs", "|".join(sorted(leg.leg.name for leg in stream.summary.legs)))


async def linking(soma: SomaClient) -> None:
    """Link, and walk the links."""
    for source, target, strength in ((ADA, TRAIN, 0.8), (TRAIN, GARDEN, 0.3)):
        linked = await soma.link(
            Target(key=source.key),
            Target(key=target.key),
            "references",
            strength=strength,
            metadata_json='{"n":9007199254740993}',
            timeout_s=30,
        )
        say("link.created", linked.created)
        say("link.version", linked.link.version)
        say("link.strength", bits(linked.link.strength))
        say("link.metadata_json", linked.link.metadata_json)
    frames = soma.neighbors(Target(key=ADA.key), k_hop=2, direction="outgoing", include_memories=True)
    async for frame in frames:
        for near in frame.neighbors.neighbors:
            say("neighbour", f"{near.memory.key}|{near.depth}|{bits(near.strength)}|{near.via.relation}")
        if frame.HasField("summary"):
            say("neighbours.partial", frame.summary.partial)
    missing = soma.link(Target(key=ADA.key), Target(key="polyglot.nobody"), "references")
    await refused("link_to_nobody", missing)


async def importing(soma: SomaClient, through: SomaClient) -> None:
    """Import through a connection that is cut on the way."""
    job = await soma.create_import(on_conflict="fail", label="polyglot")
    run = ImportRun(through, job.import_id, RecordFeed(records(), CHUNK))
    done = await run.run()
    say("import.cut_and_resumed", run.connections > 1)
    say("import.state", batch.ImportState.Name(done.state))
    say("import.total", done.total)
    say("import.stored", done.stored)
    say("import.refused", done.refused)
    async for record in soma.import_errors(job.import_id):
        reason = errors_pb2.ErrorReason.Name(record.error.reason)
        paths = "|".join(violation.field_path for violation in record.error.violations)
        say("import.error", f"{record.offset}|{record.error.code}|{reason}|{paths}")
    keys = [memory.key async for memory in soma.list(key_prefix="import.", order="key", page_size=70, timeout_s=30)]
    say("import.listed", f"{len(keys)}|{keys[0]}|{keys[-1]}")


async def refusing(soma: SomaClient, foreign_tenant: str) -> None:
    """What is wrong is told apart, and by field."""
    await refused("bad_fields", soma.remember(Memory(text="x", relevance=2.0, tags=("same", "same"))))
    await refused("no_such_key", soma.get(key="polyglot.nobody"))
    await refused("wrong_version", soma.remember(Remember(GARDEN, if_match=7)))
    await refused("foreign_tenant", soma.bound(tenant=foreign_tenant).get(key=ADA.key))
    await refused("wrong_key", soma.bound(key="soma_0000000000000000_wrong").get(key=ADA.key))
    forgotten = await soma.forget(key=GARDEN.key, timeout_s=30)
    say("forget.durability", f"DURABILITY_{forgotten.durability.name}")
    await refused("forgotten", soma.get(key=GARDEN.key))


async def main() -> None:
    """The scenario, as the tenant that the environment names."""
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    key, tenant = os.environ["SOMA_KEY"], os.environ["SOMA_TENANT"]
    async with (
        SomaClient.connect(os.environ["SOMA_TARGET"], key=key, tenant=tenant) as soma,
        SomaClient.connect(os.environ["SOMA_IMPORT_TARGET"], key=key, tenant=tenant) as through,
    ):
        await remembering(soma)
        await embedding(soma)
        await recalling(soma)
        await linking(soma)
        await importing(soma, through)
        await refusing(soma, os.environ["SOMA_FOREIGN_TENANT"])


if __name__ == "__main__":
    asyncio.run(main())

"""The acts of the demo: import, recall, isolation, a killed server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soma_client.calling import is_passing
from soma_client.cli.demo.stage import Stage
from soma_client.client import SomaClient
from soma_client.records import read_records
from soma_contract.errors import (
    Code,
    MemoryNotFoundError,
    SomaError,
    TenantExistsError,
    TenantForbiddenError,
)
from soma_contract.memory import Durability, Memory, Remember
from soma_embedded import EmbeddedStack

SHOWN = 3
INDEXED_WITHIN_S = 120.0
BACK_WITHIN_S = 60.0
RETRY_S = 0.2
WRITES_AROUND_THE_KILL = 60

QUESTIONS = {
    "atlas": (
        ("When is the code freeze?", "8 October"),
        ("How many requests a second does the new tile server answer?", "520"),
        ("Which languages come in November?", "Czech"),
    ),
    "luna": (
        ("What is the diagnosis of the knee?", "meniscus"),
        ("Who is the neighbour in the new house?", "Mrs Petrov"),
        ("Which food is dangerous for Tom?", "peanuts"),
    ),
    "harbor": (
        ("How tall is Mr Castellano?", "191 cm"),
        ("How tight may a carbon seat post be?", "newton metres"),
        ("What does a standard service cost?", "65 euros"),
    ),
}
"""For each tenant: a question, and what one of the best three hits must say."""


@dataclass(frozen=True, slots=True)
class Tenancy:
    """A tenant of the demo: its client, its records, and what was acknowledged."""

    name: str
    soma: SomaClient
    records: tuple[Memory, ...]
    acknowledged: dict[str, str]
    """Memory id to text."""


async def play(stack: EmbeddedStack, sample: Path, stage: Stage) -> None:
    """All acts, on a running stack; claims that fail are told to the stage."""
    keys = await _open_tenants(stack, sample, stage)
    async with SomaClient.connect(stack.brain_address, key=stack.development_key, own_connection=True) as brain:
        tenancies = [
            Tenancy(name, brain.bound(key=key, tenant=name), _records(sample / f"{name}.jsonl"), {})
            for name, key in keys.items()
        ]
        await _import(tenancies, stage)
        await _wait_for_the_index(stack, stage)
        await _recall(tenancies, stage)
        await _isolate(tenancies, stage)
        await _kill(stack, tenancies, stage)


async def _open_tenants(stack: EmbeddedStack, sample: Path, stage: Stage) -> dict[str, str]:
    """Creates a tenant and a key for each file of the sample."""
    keys: dict[str, str] = {}
    names = _names(sample)
    async with SomaClient.connect(stack.memory_address, key=stack.development_key) as memory:
        for name in names:
            try:
                await memory.tenants.create(name)
            except TenantExistsError:
                stage.say("exists", f"tenant {name}, from an earlier demo")
            keys[name] = (await memory.tenants.create_key(name, label="demo")).bearer
    stage.say("created", f"tenants {', '.join(keys)}, a key for each")
    return keys


def _names(sample: Path) -> list[str]:
    return sorted(file.stem for file in sample.glob("*.jsonl"))


def _records(file: Path) -> tuple[Memory, ...]:
    with file.open(encoding="utf-8") as lines:
        return tuple(read_records(lines))


def _command(memory: Memory) -> Remember:
    """With a request id that is the same in every demo, so that a second one on the same data stores nothing twice."""
    name = f"{memory.session_id}/{memory.sequence}/{memory.text}"
    return Remember(memory, request_id=f"demo-{hashlib.sha256(name.encode()).hexdigest()[:24]}")


async def _store(tenancy: Tenancy, memories: Sequence[Memory]) -> None:
    """Stores over one stream and notes what was acknowledged."""
    async for outcome in tenancy.soma.remember_many(map(_command, memories)):
        if outcome.error is not None:
            raise outcome.error
        if outcome.remembered is not None:
            tenancy.acknowledged[outcome.remembered.memory.memory_id] = memories[outcome.position].text


async def _import(tenancies: Sequence[Tenancy], stage: Stage) -> None:
    stage.title("Import through the brain, one stream a tenant")
    stage.begin()
    async with asyncio.TaskGroup() as group:
        for tenancy in tenancies:
            group.create_task(_store(tenancy, tenancy.records))
    count = sum(len(tenancy.acknowledged) for tenancy in tenancies)
    took_s = stage.took_s()
    stage.say("stored", f"{count} memories in {took_s:.2f} s ({count / took_s:.0f} a second, each on disk)")
    stage.claim("every record was acknowledged", count == sum(len(tenancy.records) for tenancy in tenancies))


async def _wait_for_the_index(stack: EmbeddedStack, stage: Stage) -> None:
    """Recall does not need it; the times shown are those of a settled index."""
    stage.begin()
    async with (
        SomaClient.connect(stack.memory_address, key=stack.development_key) as memory,
        asyncio.timeout(INDEXED_WITHIN_S),
    ):
        while (await memory.operator.index_status()).pending_rows:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.1)
    stage.say("indexed", f"embedded and searchable by meaning {stage.took_s():.1f} s later")


async def _recall(tenancies: Sequence[Tenancy], stage: Stage) -> None:
    stage.title("Recall")
    for tenancy in tenancies:
        for question, wanted in QUESTIONS.get(tenancy.name, ()):
            began = time.monotonic()
            answer = await tenancy.soma.recall_all(question, limit=SHOWN)
            took_ms = (time.monotonic() - began) * 1000
            hits = [(hit.score, hit.memory.text) for hit in answer.hits]
            stage.answer(tenancy.name, question, hits, took_ms)
            found = any(wanted.lower() in text.lower() for _, text in hits)
            stage.claim(f'one of the best {SHOWN} says "{wanted}"', found)


async def _isolate(tenancies: Sequence[Tenancy], stage: Stage) -> None:
    stage.title("Isolation")
    ours, theirs = tenancies[0], tenancies[1]
    question = QUESTIONS.get(ours.name, (("What is planned?", ""),))[0][0]
    hits = (await theirs.soma.recall_all(question, limit=50)).hits
    strangers = [hit.memory.text for hit in hits if hit.memory.memory_id in ours.acknowledged]
    stage.claim(f"{theirs.name} asks {ours.name}'s question: none of {len(hits)} hits is {ours.name}'s", not strangers)
    foreign = next(iter(ours.acknowledged))
    refusal = await _refusal(theirs.soma, foreign)
    stage.claim(
        f"{theirs.name}'s key and the id of {ours.name}'s memory: NOT_FOUND",
        isinstance(refusal, MemoryNotFoundError),
        repr(refusal),
    )
    refusal = await _refusal(ours.soma.bound(tenant=theirs.name), foreign)
    stage.claim(
        f"{ours.name}'s key with soma-tenant {theirs.name}: PERMISSION_DENIED",
        isinstance(refusal, TenantForbiddenError),
        repr(refusal),
    )


async def _refusal(soma: SomaClient, memory_id: str) -> SomaError | None:
    try:
        await soma.get(memory_id)
    except SomaError as error:
        return error
    return None


async def _kill(stack: EmbeddedStack, tenancies: Sequence[Tenancy], stage: Stage) -> None:
    stage.title("kill -9 of the memory server while agents write")
    writer = tenancies[0]
    texts = [
        f"Note {number} of {WRITES_AROUND_THE_KILL}, written around the kill"
        for number in range(1, WRITES_AROUND_THE_KILL + 1)
    ]
    durabilities: list[Durability] = []
    stage.begin()
    for place, text in enumerate(texts):
        if place == WRITES_AROUND_THE_KILL // 3:
            await stack.kill("memory")
            stage.say("killed", f"after {place} writes")
        answer = await writer.soma.remember(_command(Memory(text=text, session_id="kill", sequence=place)))
        writer.acknowledged[answer.memory.memory_id] = text
        durabilities.append(answer.durability)
    queued = durabilities.count(Durability.QUEUED)
    stage.say("written", f"{len(texts) - queued} STORED, {queued} QUEUED by the brain ({stage.took_s():.1f} s)")
    await stack.ready("memory")
    stage.say("back", f"{stage.took_s():.1f} s after the first write")
    async with asyncio.TaskGroup() as group:
        for tenancy in tenancies:
            group.create_task(_verify(tenancy, stage))


async def _verify(tenancy: Tenancy, stage: Stage) -> None:
    """Reads back all that was acknowledged, and waits until none of it is only in the outbox."""
    ids = list(tenancy.acknowledged)
    told = "it was never read"
    held = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BACK_WITHIN_S):
            while not held:
                try:
                    found = await tenancy.soma.batch_get(ids)
                except SomaError as error:
                    # The brain's breaker lets calls through again when a probe has passed; a call that was told to wait
                    # longer than it had ends at its deadline.
                    if not is_passing(error) and error.code is not Code.DEADLINE_EXCEEDED:
                        raise
                    told = error.message
                    await asyncio.sleep(error.retry_after_s or RETRY_S)
                    continue
                texts = {memory.memory_id: memory.text for memory in found if memory is not None}
                queued = sum(memory is not None and memory.version == 0 for memory in found)
                told = f"{len(ids) - len(texts)} missing, {queued} still queued"
                held = texts == tenancy.acknowledged and not queued
                if not held:
                    await asyncio.sleep(RETRY_S)
    stage.claim(f"{tenancy.name}: all {len(ids)} acknowledged memories are there and stored", held, told)

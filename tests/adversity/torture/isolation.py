"""A hundred tenants reach for each other's memories; every byte of every answer is searched for foreign canaries."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import httpx

from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.graph.v1 import graph_service_pb2_grpc as graph_rpc
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from tests.adversity.torture.attacks import ATTACKS, SHARED_WORDS, Blow, Home
from tests.adversity.torture.indexes import largest_collection, plant_rows
from tests.adversity.torture.parts import Part
from tests.adversity.torture.scene import Inhabitant, Scene
from tests.adversity.torture.verdicts import Verdict

CANARY = re.compile(rb"canary[0-9a-f]{32}")
MEMORIES = 5
"""Memories of each tenant that hold its canary."""
AT_ONCE = 24
_REFUSALS = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)
_RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


@dataclass(slots=True)
class Findings:
    """What attacks brought back."""

    attempts: Counter[str] = field(default_factory=Counter)
    """By attack."""
    own: int = 0
    """Own canaries seen: the search for them works."""
    leaks: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """Answers that are no refusal an attacker should get."""
    away: int = 0
    """Attempts that met a server in trouble, not counted."""

    def search(self, attack: str, attacker: Inhabitant, content: bytes) -> None:
        """Look for canaries."""
        for canary in CANARY.findall(content):
            if canary == attacker.canary.encode():
                self.own += 1
            else:
                self.leaks.append(f"{attack}: {attacker.name} was shown {canary.decode()}")


async def populated(scene: Scene, count: int) -> list[Home]:
    """Tenants with memories, links and what else can be reached for."""
    await scene.populated(count)
    turns = asyncio.Semaphore(AT_ONCE)

    async def settle(inhabitant: Inhabitant) -> Home:
        async with turns:
            return await _settled(scene, inhabitant)

    return list(await asyncio.gather(*(settle(one) for one in scene.tenants[:count])))


async def _settled(scene: Scene, inhabitant: Inhabitant) -> Home:
    memories, graph = rpc.MemoryServiceStub(scene.memory), graph_rpc.GraphServiceStub(scene.memory)
    ids, keys, requests = [], [], []
    for number in range(MEMORIES):
        key, request_id = f"vault.{number}", f"settling-{inhabitant.name}-{number}"
        memory = memory_pb2.Memory(
            # The same key in every tenant, so the same id; the last ones are keyless and have ids of their own.
            key=key if number < MEMORIES - 2 else "",
            text=f"{SHARED_WORDS}, says {inhabitant.canary} for the time {number}",
            payload_json=json.dumps({"word": inhabitant.canary}),
            tags=[inhabitant.canary],
            actor=inhabitant.canary,
            session_id=f"session-of-{inhabitant.name}",
        )
        request = pb.RememberRequest(memory=memory, request_id=request_id)
        stored = (await memories.Remember(request, metadata=inhabitant.metadata, timeout=20)).memory
        ids.append(stored.memory_id)
        keys.append(key)
        requests.append(request_id)
    for source, target in itertools.pairwise(ids):
        link = graph_pb.LinkRequest(
            source=common.MemoryTarget(memory_id=source),
            target=common.MemoryTarget(memory_id=target),
            relation="related",
            metadata_json=json.dumps({"word": inhabitant.canary}),
        )
        await graph.Link(link, metadata=inhabitant.metadata, timeout=20)
    page = await memories.List(pb.ListRequest(page_size=1), metadata=inhabitant.metadata, timeout=20)
    # Reaching for the ids that every tenant has as well would be reading one's own.
    return Home(inhabitant, ids[-2:], keys, requests, page.next_page_token, f"session-of-{inhabitant.name}")


async def attack(scene: Scene, homes: Sequence[Home], attempts: int, seed: int) -> Findings:
    """Make so many attempts, all kinds in turn, both ways in."""
    chosen, findings = random.Random(seed), Findings()
    names = list(ATTACKS)
    numbers = iter(range(attempts * 2))

    async def raid() -> None:
        for number in numbers:
            if sum(findings.attempts.values()) >= attempts:
                return
            attacker, victim = chosen.sample(homes, 2)
            channel = scene.brain if number % 2 else scene.memory
            await _struck(names[number // 2 % len(names)], Blow(channel, attacker, victim, chosen), findings)

    await asyncio.gather(*(raid() for _ in range(AT_ONCE)))
    return findings


async def _struck(name: str, blow: Blow, findings: Findings) -> None:
    try:
        answer = await ATTACKS[name](blow)
    except grpc.aio.AioRpcError as refused:
        if refused.code() in _RETRIED:
            findings.away += 1
            return
        findings.attempts[name] += 1
        findings.search(name, blow.attacker.inhabitant, _told(refused))
        if refused.code() not in _REFUSALS:
            findings.surprises.append(f"{name}: {refused.code().name}: {refused.details()}")
        return
    findings.attempts[name] += 1
    for message in answer if isinstance(answer, list) else [answer]:
        findings.search(name, blow.attacker.inhabitant, message.SerializeToString())


def _told(refused: grpc.aio.AioRpcError) -> bytes:
    """Everything that a refusal carries."""
    metadata = [*(refused.trailing_metadata() or ()), *(refused.initial_metadata() or ())]
    values = [value if isinstance(value, bytes) else str(value).encode() for _, value in metadata]
    return b"\n".join([(refused.details() or "").encode(), *values])


async def untouched(scene: Scene, homes: Sequence[Home]) -> list[str]:
    """Memories that are not what their owners wrote."""
    stub, changed = rpc.MemoryServiceStub(scene.memory), []
    for home in homes:
        for memory_id in home.memory_ids:
            request = pb.GetRequest(target=common.MemoryTarget(memory_id=memory_id))
            try:
                answer = await stub.Get(request, metadata=home.metadata, timeout=20)
            except grpc.aio.AioRpcError as failed:
                changed.append(f"{memory_id} of {home.inhabitant.name}: {failed.code().name}")
                continue
            if home.inhabitant.canary not in answer.memory.text:
                changed.append(f"{memory_id} of {home.inhabitant.name}: {answer.memory.text}")
    return changed


async def overheard(scene: Scene) -> list[str]:
    """Canaries in what operators see: logs and metrics."""
    found = []
    for server, address in scene.ops.items():
        log = scene.stack.directory.log(server).read_bytes()
        async with httpx.AsyncClient(timeout=20) as http:
            metrics = (await http.get(f"http://{address}/metrics")).content
        for where, content in (("log", log), ("metrics", metrics)):
            if CANARY.search(content):
                found.append(f"{where} of {server}")
    return found


async def plant_strangers(scene: Scene, homes: Sequence[Home], seed: int) -> int:
    """Have the index say of others' memories that they are each tenant's own; return of how many."""
    chosen = random.Random(seed)
    await scene.indexed()
    collection = await largest_collection(scene)
    async with MilvusIndex(MilvusAddress.parse(scene.stack.stores.milvus_uri)) as index:
        for home in homes:
            others = [one for one in chosen.sample(homes, min(4, len(homes))) if one is not home]
            rows = [(SHARED_WORDS, memory_id) for other in others for memory_id in other.memory_ids]
            await plant_rows(index, collection, home.inhabitant, rows, version=1)
    return sum(len(home.memory_ids) for home in homes)


async def without_row_security(scene: Scene) -> int:
    """Take the wall inside Postgres down; return from how many tables."""
    connection = await asyncpg.connect(scene.stack.stores.postgres_admin_url)
    try:
        tables = await connection.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relrowsecurity AND relkind IN ('r', 'p')"
        )
        for table in tables:
            await connection.execute(f"ALTER TABLE {table['name']} NO FORCE ROW LEVEL SECURITY")
            await connection.execute(f"ALTER TABLE {table['name']} DISABLE ROW LEVEL SECURITY")
    finally:
        await connection.close()
    return len(tables)


async def breached(scene: Scene, homes: Sequence[Home], attempts: int, seed: int) -> Verdict:
    """With no wall left between index and caller there are leaks: the search for them is not blind."""
    await without_row_security(scene)
    findings = await attack(scene, homes, attempts, seed)
    told = f"{len(findings.leaks)} in {sum(findings.attempts.values()):,} attempts"
    return Verdict("with row-level security off as well there are leaks", bool(findings.leaks), told)


async def raided(scene: Scene, name: str, homes: Sequence[Home], attempts: int, seed: int, **facts: Any) -> Part:
    """Attack and judge."""
    findings = await attack(scene, homes, attempts, seed)
    made = sum(findings.attempts.values())
    heard = await overheard(scene)
    verdicts = [
        Verdict.none("no tenant was shown another's canary", findings.leaks, f"{made:,} attempts"),
        Verdict.none("every refusal is one", findings.surprises, f"{made:,} attempts"),
        Verdict.none("nothing was changed by a stranger", await untouched(scene, homes), f"{len(homes)} tenants"),
        Verdict.none("no canary in logs and metrics", heard, "2 servers"),
        Verdict(
            "the search finds canaries where they belong", findings.own > 0, f"{findings.own:,} own canaries in answers"
        ),
        Verdict("there were as many attempts as there had to be", made >= attempts, f"{made:,} attempts"),
    ]
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(findings.attempts.items()))
    counts = {"tenants": f"{len(homes)}", "attempts": f"{made:,}", "kinds": kinds, **facts}
    if findings.away:
        counts["attempts that met a server in trouble, not counted"] = f"{findings.away:,}"
    return Part(name, verdicts, counts)

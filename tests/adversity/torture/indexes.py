"""The index is corrupted, made anew and moved to another model while agents recall: never a wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np

from memory_server.ports import Collection, IndexRow
from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.batch.v1 import batch_service_pb2 as batch_pb
from soma.batch.v1 import batch_service_pb2_grpc as batch_rpc
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.ids import new_memory_id
from soma_contract.memory import Memory
from soma_contract.tenant import admin_tenant
from tests.adversity.torture.parts import Part
from tests.adversity.torture.scene import Inhabitant, Scene, now
from tests.adversity.torture.verdicts import Verdict

TENANTS = 8
REPAIRED_WITHIN_S = 60.0
_BATCH = 250
_RECALLERS = 3


@dataclass(slots=True)
class Stored:
    """What each tenant has: ids by text."""

    ids: dict[Inhabitant, dict[str, str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Memories of all tenants."""
        return sum(map(len, self.ids.values()))


async def filled(scene: Scene, rows: int) -> Stored:
    """Remember so many memories and wait until the index has them."""
    stored = Stored()
    for home in await scene.populated(TENANTS):
        texts = [f"{home.canary} wrote down matter {number}" for number in range(rows // TENANTS)]
        known = stored.ids[home] = {}
        for start in range(0, len(texts), _BATCH):
            items = [pb.RememberRequest(memory=memory_pb2.Memory(text=text)) for text in texts[start : start + _BATCH]]
            request = batch_pb.RememberBatchRequest(items=items)
            stub = batch_rpc.BatchServiceStub(scene.memory)
            answer = await stub.RememberBatch(request, metadata=home.metadata, timeout=60)
            for item in answer.items:
                known[item.remembered.memory.text] = item.remembered.memory.memory_id
    await scene.indexed(within_s=900.0)
    return stored


@contextlib.asynccontextmanager
async def recalling(scene: Scene, stored: Stored, seed: int) -> AsyncIterator[tuple[Counter[str], list[str]]]:
    """Recall what is known until left: counts, and whatever was wrong."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    async def recall(chosen: random.Random) -> None:
        homes = list(stored.ids)
        while True:
            home = chosen.choice(homes)
            text, memory_id = chosen.choice(list(stored.ids[home].items()))
            request = pb.RecallRequest(text=text, limit=3)
            hits = []
            try:
                stub = rpc.MemoryServiceStub(scene.memory)
                async for frame in stub.Recall(request, metadata=home.metadata, timeout=20):
                    if frame.HasField("hit"):
                        hits.append(frame.hit.memory)
                    else:
                        counts["degraded"] += frame.summary.degraded
            except grpc.aio.AioRpcError as failed:
                wrong.append(f"a recall failed: {failed.code().name}: {failed.details()}")
                continue
            counts["recalls"] += 1
            if not hits or (hits[0].memory_id, hits[0].text) != (memory_id, text):
                wrong.append(f"{home.name} asked for {text!r} and got {[hit.text for hit in hits]}")
            wrong.extend(
                f"{home.name} was shown {hit.text!r}" for hit in hits if stored.ids[home].get(hit.text) != hit.memory_id
            )

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(recall(random.Random(seed + number))) for number in range(_RECALLERS)]
        try:
            yield counts, wrong
        finally:
            for task in tasks:
                task.cancel()


async def corrupt(scene: Scene, stored: Stored, seed: int) -> Counter[str]:
    """Corrupt a tenth of the rows in four ways; return how many of each."""
    chosen, done = random.Random(seed), Counter[str]()
    collection = await largest_collection(scene)
    share = stored.rows // 10 // 4 // len(stored.ids)
    homes = list(stored.ids)
    async with MilvusIndex(MilvusAddress.parse(scene.stack.stores.milvus_uri)) as index:
        for place, home in enumerate(homes):
            tenant = admin_tenant(home.name, reason="torture")
            picked = chosen.sample(list(stored.ids[home].items()), 3 * share)
            missing, outdated, copied = picked[:share], picked[share : 2 * share], picked[2 * share :]
            await index.remove(collection, [(tenant, memory_id) for _, memory_id in missing])
            await plant_rows(index, collection, home, outdated, version=7)
            invented = [("never said", new_memory_id()) for _ in range(share)]
            await plant_rows(index, collection, home, invented, version=1)
            await plant_rows(index, collection, homes[(place + 1) % len(homes)], copied, version=1)
            done.update({"missing": share, "outdated": share, "invented": share, "foreign": share})
    return done


async def plant_rows(
    index: MilvusIndex, collection: Collection, home: Inhabitant, rows: Sequence[tuple[str, str]], version: int
) -> None:
    """Put rows of a tenant, (text, memory id), into the index behind everybody's back."""
    vector = np.zeros(collection.dimension, np.float32)
    vector[0] = 1.0
    tenant = admin_tenant(home.name, reason="torture")
    memories = [Memory(memory_id=memory_id, text=text, version=version) for text, memory_id in rows]
    for start in range(0, len(memories), 500):
        batch = memories[start : start + 500]
        await index.upsert(collection, [IndexRow(tenant, one, version, vector, one.text) for one in batch])


async def largest_collection(scene: Scene) -> Collection:
    """The collection that holds most rows."""
    request = operator_pb.GetIndexStatusRequest()
    status = await scene.operator().GetIndexStatus(request, metadata=scene.admin, timeout=20)
    most = max(status.collections, key=lambda one: one.rows)
    return Collection(most.collection, most.epoch, most.embedding.profile, most.embedding.dimension)


async def repair(scene: Scene, stored: Stored, seed: int) -> Part:
    """Corrupt, have it found and repaired, and recall meanwhile."""
    done = await corrupt(scene, stored, seed)
    began = now()
    async with recalling(scene, stored, seed) as (counts, wrong):
        first = await scene.reconciled()
        await scene.indexed(within_s=300.0)
        took_s = now() - began
        second = await scene.reconciled()
    found = first.missing + first.outdated + first.orphaned
    left = second.missing + second.outdated + second.orphaned
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(done.items()))
    exact = (first.missing, first.outdated, first.orphaned) == (
        done["missing"],
        done["outdated"],
        done["invented"] + done["foreign"],
    )
    return Part(
        "a tenth of the index corrupted",
        [
            Verdict(
                "all of it was found, and nothing else",
                exact,
                f"{first.missing:,} missing, {first.outdated:,} outdated, {first.orphaned:,} orphaned of {kinds}",
            ),
            Verdict(
                "all of it was repaired", left == 0 and first.repaired == found, f"{first.repaired:,} of {found:,}"
            ),
            Verdict("in a minute", took_s <= REPAIRED_WITHIN_S, f"{took_s:.1f} s"),
            Verdict.none("recall was right meanwhile", wrong, f"{counts['recalls']:,} recalls"),
        ],
        {"rows in the index": f"{stored.rows:,}", "corrupted": kinds, "found and repaired in": f"{took_s:.1f} s"},
    )


async def rebuild(scene: Scene, stored: Stored, seed: int) -> Part:
    """Make the index anew under live recall."""
    before = await largest_collection(scene)
    async with recalling(scene, stored, seed) as (counts, wrong):
        began = now()
        request = operator_pb.RebuildIndexRequest()
        job = (await scene.operator().RebuildIndex(request, metadata=scene.admin, timeout=20)).job
        job = await scene.ended(job, within_s=900.0)
        took_s = now() - began
    after = await largest_collection(scene)
    return Part(
        "the index made anew",
        [
            _ended(job),
            Verdict("another collection took its place", before != after, f"{before.name} → {after.name}"),
            Verdict.none("recall was right meanwhile", wrong, f"{counts['recalls']:,} recalls"),
            await _compared(scene),
        ],
        {"rows": f"{job.done:,}", "took": f"{took_s:.1f} s", **_answers(counts)},
    )


async def re_embed(scene: Scene, stored: Stored, seed: int) -> Part:
    """Move every tenant to another model of another dimension under live recall."""
    before = await largest_collection(scene)
    ours, theirs = f"/{before.dimension}", "/32" if before.dimension == 64 else "/64"
    profile = before.profile.replace(ours, theirs)
    rows, took_s, jobs = 0, 0.0, []
    async with recalling(scene, stored, seed) as (counts, wrong):
        began = now()
        request = operator_pb.ReEmbedRequest(profile=profile)
        job = (await scene.operator().ReEmbed(request, metadata=scene.admin, timeout=20)).job
        jobs.append(await scene.ended(job, within_s=900.0))
        rows, took_s = jobs[-1].done, now() - began
    await scene.indexed(within_s=300.0)
    after = await largest_collection(scene)
    return Part(
        "all tenants moved to another model",
        [
            _ended(jobs[-1]),
            Verdict(
                "the dimension is the other model's",
                before.dimension != after.dimension,
                f"{before.dimension} → {after.dimension}",
            ),
            Verdict.none("recall was right meanwhile", wrong, f"{counts['recalls']:,} recalls"),
            await _compared(scene),
        ],
        {"memories": f"{rows:,}", "took": f"{took_s:.1f} s", **_answers(counts)},
    )


def _ended(job: operator_pb.IndexJob) -> Verdict:
    state = operator_pb.IndexJobState.Name(job.state).removeprefix("INDEX_JOB_STATE_").lower()
    done = job.state == operator_pb.INDEX_JOB_STATE_DONE
    return Verdict("the job was done", done, f"{state}, {job.done:,} of {job.total:,}")


async def _compared(scene: Scene) -> Verdict:
    report = await scene.reconciled()
    differences = report.missing + report.outdated + report.orphaned
    return Verdict("the index is what the truth says", differences == 0, f"{differences} of {report.compared:,} differ")


def _answers(counts: Counter[str]) -> dict[str, str]:
    return {"recalls meanwhile, degraded": f"{counts['recalls']:,}, {counts['degraded']:,}"}

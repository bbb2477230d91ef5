"""Servers die at every named place of their code, at one passing or another, while agents write."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from memory_server.ports import Collection, CollectionLostError, IndexRow
from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from rpckit.failpoints import POINTS
from soma.admin.v1 import operator_service_pb2 as pb
from soma_contract.errors import SomaError
from soma_contract.ids import new_memory_id
from soma_contract.memory import Memory
from soma_contract.tenant import admin_tenant
from tests.adversity.torture.agents import living
from tests.adversity.torture.history import History
from tests.adversity.torture.killing import back_after, judged, settled_in
from tests.adversity.torture.nemesis import Nemesis
from tests.adversity.torture.parts import Part
from tests.adversity.torture.scene import AWAY, Scene
from tests.adversity.torture.verdicts import Verdict

HITS = (1, 3, 10)
"""Passings of a place that is passed all the time; one that has to be provoked is met the first time."""
_WITHIN_S = 30.0
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Provocations:
    """What makes a server pass a place that it does not pass every moment."""

    scene: Scene
    chosen: random.Random

    def of(self, point: str) -> Callable[[], Awaitable[None]] | None:
        """What to do while a server is to die at this place; None if agents' writes are enough."""
        if point == "milvus.created":
            return self.wiped
        area = point.partition(".")[0]
        if area == "rebuild" or point == "milvus.dropped":
            return self.rebuilt
        return {"reconcile": self.reconciled, "reembed": self.re_embedded}.get(area)

    async def wiped(self) -> None:
        """Delete the index."""
        await self.scene.stack.stores.wipe("milvus")

    async def rebuilt(self) -> None:
        """Have the index made anew."""
        operator = self.scene.operator()
        await operator.RebuildIndex(pb.RebuildIndexRequest(), metadata=self.scene.admin, timeout=20)

    async def re_embedded(self) -> None:
        """Move a tenant to the profile it does not have."""
        home = self.chosen.choice(self.scene.tenants)
        for profile in ("", "hashing"):
            name = await self._profile(profile)
            request = pb.ReEmbedRequest(tenant=home.name, profile=name)
            job = (await self.scene.operator().ReEmbed(request, metadata=self.scene.admin, timeout=20)).job
            if (await self.scene.ended(job)).done:
                return

    async def _profile(self, wanted: str) -> str:
        """The profile for new tenants for "", else the one that tenants can be moved from."""
        info = await self.scene.operator().GetServerInfo(
            pb.GetServerInfoRequest(), metadata=self.scene.admin, timeout=20
        )
        ours = str(info.embedding.profile)
        return "" if not wanted else ours.replace("/64", "/32")

    async def reconciled(self) -> None:
        """Corrupt the index, then have it compared."""
        await self.corrupted()
        operator, request = self.scene.operator(), pb.ReconcileRequest(repair=True)
        await operator.Reconcile(request, metadata=self.scene.admin, timeout=20)

    async def corrupted(self) -> None:
        """Take some rows out of the index and put some of an unknown tenant in."""
        status = await self.scene.operator().GetIndexStatus(
            pb.GetIndexStatusRequest(), metadata=self.scene.admin, timeout=20
        )
        async with MilvusIndex(MilvusAddress.parse(self.scene.stack.stores.milvus_uri)) as index:
            for one in status.collections:
                profile = one.embedding.profile
                collection = Collection(one.collection, one.epoch, profile, one.embedding.dimension)
                with contextlib.suppress(CollectionLostError, SomaError):
                    await _corrupt(index, collection)


async def _corrupt(index: MilvusIndex, collection: Collection) -> None:
    rows = await index.versions(collection, after_key="", limit=20)
    taken = [(admin_tenant(name, reason="torture"), memory_id) for name, memory_id, _ in rows]
    await index.remove(collection, taken)
    vector = np.zeros(collection.dimension, np.float32)
    vector[0] = 1.0
    stranger = admin_tenant("stranger", reason="torture")
    planted = [Memory(memory_id=new_memory_id(), text="planted", version=1) for _ in range(20)]
    await index.upsert(collection, [IndexRow(stranger, memory, 1, vector, memory.text) for memory in planted])


async def die_at_named_places(scene: Scene, *, count: int, hits: int, tenants: int, seed: int) -> Part:
    """Let servers die at ``count`` places (0: all), each at ``hits`` different passings."""
    chosen = random.Random(seed)
    history, nemesis = History(), Nemesis(scene, random.Random(chosen.getrandbits(64)))
    provocations = Provocations(scene, random.Random(chosen.getrandbits(64)))
    agents = await settled_in(scene, history, chosen, tenants, at_once=8)
    points = [*nemesis.points()[: count or len(POINTS)]]
    spared: list[str] = []
    async with living(agents):
        for place, point in enumerate(points * hits):
            if not await _died(nemesis, provocations, point, place // len(points)):
                spared.append(point)
            await scene.healed()
    verdicts = await judged(scene, history, agents)
    missed = sorted(set(points) - set(nemesis.fired))
    told = f"{len(nemesis.fired)} of {len(points)} places, {nemesis.kills} deaths"
    if missed or spared:
        told += f"; not met in time: {', '.join(spared)}"
    facts = {
        "places, deaths": f"{len(nemesis.fired)}, {nemesis.kills}",
        "acknowledged writes": f"{history.acknowledged:,}",
        **back_after(nemesis),
    }
    return Part("dying at named places", [*verdicts, Verdict("every place was met", not missed, told)], facts)


async def _died(nemesis: Nemesis, provocations: Provocations, point: str, turn: int) -> bool:
    provoke = provocations.of(point)
    hit = 1 if provoke is not None else HITS[turn % len(HITS)] + turn // len(HITS)
    for _ in range(_TRIES):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_provoked(provoke)) if provoke is not None else None
            died = await nemesis.die_at(point, hit, _WITHIN_S)
            if task is not None:
                task.cancel()
        if died:
            return True
    return False


async def _provoked(provoke: Callable[[], Awaitable[None]]) -> None:
    # A moment after the order was given, and again where a server was away.
    while True:
        await asyncio.sleep(0.3)
        try:
            await provoke()
        except (grpc.aio.AioRpcError, SomaError) as failed:
            if isinstance(failed, grpc.aio.AioRpcError) and failed.code() not in AWAY:
                raise
        else:
            return


def drawn(names: Sequence[str], count: int, seed: int) -> list[str]:
    """So many of the names, drawn by the seed; 0 draws all."""
    return random.Random(seed).sample(sorted(names), count or len(names))

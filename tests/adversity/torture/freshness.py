"""A recall that starts after a write was acknowledged has it, while nobody indexes; and how soon the dead are back."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from tests.adversity.torture.networks import in_turn
from tests.adversity.torture.parts import Part
from tests.adversity.torture.scene import AWAY, PROCESSES, Inhabitant, Scene, now
from tests.adversity.torture.verdicts import Verdict

AT_ONCE = 16
TARGETS_S = {"brain": 2.0, "memory": 2.0, "postgres": 6.0, "redis": 2.0, "milvus": 5.0}
"""How soon each process should be back, on a machine that has nothing else to do."""


async def recall_own_writes(scene: Scene, tries: int, tenants: int) -> Part:
    """Write and recall at once, both ways in, with the indexer stopped; half of it with the index gone as well."""
    homes = await scene.populated(tenants)
    operator = scene.operator()
    request = operator_pb.PauseIndexerRequest(paused=True, max_pause=Duration(seconds=3_600))
    await operator.PauseIndexer(request, metadata=scene.admin, timeout=20)
    missed: list[str] = []
    for wiped, count in ((False, tries - tries // 2), (True, tries // 2)):
        if wiped:
            await scene.stack.stores.wipe("milvus")
            await scene.healed()

        async def one(number: int, word: str = "wiped" if wiped else "there") -> None:
            channel, way = (scene.brain, "brain") if number % 2 else (scene.memory, "memory server")
            home = homes[number // 2 % len(homes)]
            if not await _recalled(channel, home, f"try {number} with the index {word}"):
                missed.append(f"try {number} through the {way}, index {word}")

        await in_turn(count, AT_ONCE, one)
    status = await operator.GetIndexStatus(operator_pb.GetIndexStatusRequest(), metadata=scene.admin, timeout=20)
    await operator.PauseIndexer(operator_pb.PauseIndexerRequest(paused=False), metadata=scene.admin, timeout=20)
    await scene.indexed(within_s=300.0)
    return Part(
        "recalling what was just written",
        [
            Verdict.none("every recall had the write before it", missed, f"{tries:,} recalls"),
            Verdict("the indexer did rest", status.pending_rows >= tries, f"{status.pending_rows:,} rows were pending"),
        ],
        {"recalls, index there and wiped": f"{tries - tries // 2:,}, {tries // 2:,}", "tenants": f"{len(homes)}"},
    )


async def _recalled(channel: grpc.aio.Channel, home: Inhabitant, what: str) -> bool:
    stub = rpc.MemoryServiceStub(channel)
    memory = memory_pb2.Memory(text=f"{home.canary} notes {what}")
    await _persistently(stub.Remember, pb.RememberRequest(memory=memory, request_id=f"{home.name} {what}"), home)
    request = pb.RecallRequest(text=f"notes {what}", limit=10)
    for _ in range(50):
        try:
            call = stub.Recall(request, metadata=home.metadata, timeout=20)
            return memory.text in [frame.hit.memory.text async for frame in call if frame.HasField("hit")]
        except grpc.aio.AioRpcError as failed:
            if failed.code() not in AWAY:
                raise
            await asyncio.sleep(0.1)
    return False


async def _persistently(method: Any, request: object, home: Inhabitant) -> None:
    for _ in range(100):
        try:
            await method(request, metadata=home.metadata, timeout=20)
        except grpc.aio.AioRpcError as failed:
            if failed.code() not in AWAY:
                raise
            await asyncio.sleep(0.1)
        else:
            return
    raise TimeoutError("a write was refused a hundred times")


async def time_restarts(scene: Scene, times: int) -> Part:
    """Kill each process of an idle stack; time until it answers, and until calls pass through both servers."""
    (home, *_) = await scene.populated(1)
    back: dict[str, list[float]] = defaultdict(list)
    through: dict[str, list[float]] = defaultdict(list)
    for _ in range(times):
        for victim in PROCESSES:
            await scene.healed()
            began = now()
            await scene.stack.kill(victim)
            await scene.stack.ready(victim)
            back[victim].append(now() - began)
            await _served(scene, home)
            through[victim].append(now() - began)
    facts = {
        f"{victim}: itself, and a write and a recall through both servers; median, longest": f"{_told(back[victim])}; "
        f"{_told(through[victim])}"
        for victim in PROCESSES
    }
    slow = [f"{victim} {max(back[victim]):.1f} s" for victim in PROCESSES if max(back[victim]) > TARGETS_S[victim]]
    facts["beyond the target for an idle machine"] = ", ".join(slow) or "none"
    made = sum(len(one) for one in back.values())
    return Part(
        "back after death",
        [Verdict("every process came back and served", made == times * len(PROCESSES), f"{made} deaths")],
        facts,
    )


async def _served(scene: Scene, home: Inhabitant) -> None:
    """Wait until a write is stored and recalled, on both ways in."""
    async with asyncio.timeout(120):
        for channel in (scene.brain, scene.memory):
            while True:
                try:
                    request = pb.RememberRequest(memory=memory_pb2.Memory(key="restart", text="after the restart"))
                    stub = rpc.MemoryServiceStub(channel)
                    await stub.Remember(request, metadata=home.metadata, timeout=2)
                    recall = pb.RecallRequest(text="after the restart", limit=1)
                    async for _ in stub.Recall(recall, metadata=home.metadata, timeout=2):
                        pass
                    break
                except grpc.aio.AioRpcError as failed:
                    if failed.code() not in AWAY:
                        raise
                    await asyncio.sleep(0.02)


def _told(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f} s, {max(times):.2f} s"

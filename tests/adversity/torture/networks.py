"""Callers who hang up at random moments, and stores that answer nothing: nobody gets a wrong or a late answer."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from tests.adversity.torture.agents import named
from tests.adversity.torture.parts import Part
from tests.adversity.torture.scene import AWAY, Inhabitant, Scene
from tests.adversity.torture.verdicts import Verdict
from tests.support.fault_proxy import Fault

STORES = ("postgres", "milvus", "redis")
AT_ONCE = 32
LONGEST_S = 0.15
"""Calls are cancelled within this time."""
DEADLINE_S = 1.0
GRACE_S = 0.25
"""How much later than its deadline a call may be back."""
KEYS = 40
_POOLS = 12 + 3 + 3 + 4
"""Connections that a memory server may hold: for calls, indexing, bulk and health."""


def text_of(home: Inhabitant, number: int) -> str:
    """What the memory with this number says, for ever."""
    return f"{home.canary} keeps thing number {number}"


async def kept(scene: Scene, count: int) -> Sequence[Inhabitant]:
    """Tenants whose memories are known word for word."""
    homes = await scene.populated(count)
    for home in homes:
        for number in range(KEYS):
            memory = memory_pb2.Memory(key=f"thing.{number}", text=text_of(home, number))
            request = pb.RememberRequest(memory=memory)
            await rpc.MemoryServiceStub(scene.memory).Remember(request, metadata=home.metadata, timeout=20)
    await scene.indexed()
    return homes


@dataclass(slots=True)
class Answers:
    """What callers got."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    longest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls, and knows what the answer has to be."""

    channel: grpc.aio.Channel
    home: Inhabitant
    chosen: random.Random
    answers: Answers

    async def call(self, timeout_s: float) -> None:
        """Make one call of some kind; raises AioRpcError."""
        deed = self.chosen.choice((self._get, self._get, self._recall, self._remember, self._list))
        await deed(self.chosen.randrange(KEYS), timeout_s)

    async def _get(self, number: int, timeout_s: float) -> None:
        request = pb.GetRequest(target=named(f"thing.{number}"))
        answer = await self._stub.Get(request, metadata=self.home.metadata, timeout=timeout_s)
        self._judge(answer.memory.text == text_of(self.home, number), f"Get of {number}", answer.memory.text)

    async def _remember(self, number: int, timeout_s: float) -> None:
        memory = memory_pb2.Memory(key=f"thing.{number}", text=text_of(self.home, number))
        request = pb.RememberRequest(memory=memory)
        answer = await self._stub.Remember(request, metadata=self.home.metadata, timeout=timeout_s)
        self._judge(answer.memory.text == memory.text, f"Remember of {number}", answer.memory.text)

    async def _list(self, number: int, timeout_s: float) -> None:
        request = pb.ListRequest(key_prefix=f"thing.{number}", page_size=20)
        answer = await self._stub.List(request, metadata=self.home.metadata, timeout=timeout_s)
        texts = [memory.text for memory in answer.memories]
        fine = all(text.startswith(self.home.canary) for text in texts) and text_of(self.home, number) in texts
        self._judge(fine, f"List of {number}", texts)

    async def _recall(self, number: int, timeout_s: float) -> None:
        request, texts = pb.RecallRequest(text=text_of(self.home, number), limit=3), []
        degraded = True
        async for frame in self._stub.Recall(request, metadata=self.home.metadata, timeout=timeout_s):
            if frame.HasField("summary"):
                degraded = frame.summary.degraded
            else:
                texts.append(frame.hit.memory.text)
        fine = all(text.startswith(self.home.canary) for text in texts)
        self._judge(fine and (degraded or text_of(self.home, number) in texts), f"Recall of {number}", texts)

    @property
    def _stub(self) -> Any:
        return rpc.MemoryServiceStub(self.channel)

    def _judge(self, fine: bool, what: str, answer: object) -> None:
        self.answers.counts["answered"] += 1
        if not fine:
            self.answers.wrong.append(f"{what} by {self.home.name} answered {answer!r}")


async def in_turn(count: int, at_once: int, deed: Callable[[int], Awaitable[None]]) -> None:
    """Do something so many times, so many at once."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await deed(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


async def hang_up(scene: Scene, homes: Sequence[Inhabitant], cancelled: int, seed: int) -> Part:
    """Cancel calls at random moments while the way to the stores is slow, with calls among them that wait."""
    chosen, answers = random.Random(seed), Answers()
    for proxy in scene.proxies.values():
        proxy.delay_s, proxy.fault = 0.005, Fault.DELAY
    # One in four of those that are begun is answered before it is cancelled, about.
    began = time.monotonic()
    while answers.counts["cancelled"] < cancelled and time.monotonic() - began < 60 + cancelled / 20:
        left = cancelled - answers.counts["cancelled"]

        async def one(number: int) -> None:
            channel = scene.brain if number % 2 else scene.memory
            caller = Caller(channel, chosen.choice(homes), random.Random(chosen.getrandbits(64)), answers)
            await _cancelled(caller, None if number % 10 == 0 else chosen.uniform(0.0, LONGEST_S))

        await in_turn(max(20, left), AT_ONCE, one)
    for proxy in scene.proxies.values():
        proxy.fault = Fault.PASS
    await scene.healed()
    after = Answers()
    for home in homes:
        for channel in (scene.brain, scene.memory):
            for _ in range(10):
                await Caller(channel, home, chosen, after).call(20.0)
    held = await connections(scene)
    told = f"{held['all']} held, {held['idle in transaction']} in an open transaction; {_POOLS} may be held"
    made = f"{answers.counts['answered']:,} answers, {answers.counts['cancelled']:,} cancelled calls"
    return Part(
        "callers who hang up",
        [
            Verdict.none("every answer was the one asked for", answers.wrong, made),
            Verdict.none("every answer afterwards is right", after.wrong, f"{after.counts['answered']} answers"),
            Verdict("no connection leaked", held["all"] <= _POOLS and not held["idle in transaction"], told),
            Verdict("so many calls were cancelled", answers.counts["cancelled"] >= cancelled, made),
        ],
        {**{name: f"{count:,}" for name, count in sorted(answers.counts.items())}, "connections to Postgres": told},
    )


async def _cancelled(caller: Caller, after_s: float | None) -> None:
    task = asyncio.ensure_future(caller.call(20.0))
    await asyncio.wait([task], timeout=after_s)
    if task.cancel():
        caller.answers.counts["cancelled"] += 1
    try:
        await task
    except asyncio.CancelledError:
        pass
    except grpc.aio.AioRpcError as failed:
        caller.answers.counts["failed"] += 1
        if failed.code() not in AWAY:
            caller.answers.wrong.append(f"a call failed with {failed.code().name}: {failed.details()}")


async def connections(scene: Scene, within_s: float = 10.0) -> Counter[str]:
    """Connections of the application role to Postgres, by state, once they have come to rest."""
    connection = await asyncpg.connect(scene.stack.stores.postgres_admin_url)
    try:
        until = time.monotonic() + within_s
        while True:
            rows = await connection.fetch(
                "SELECT state, count(*) AS number FROM pg_stat_activity WHERE usename <> current_user "
                "AND datname = current_database() AND backend_type = 'client backend' GROUP BY state"
            )
            found = Counter({row["state"] or "": row["number"] for row in rows})
            found["all"] = sum(found.values())
            if not found["idle in transaction"] or time.monotonic() > until:
                return found
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def black_hole(scene: Scene, homes: Sequence[Inhabitant], calls: int, seed: int) -> Part:
    """Let each store in turn take what is sent and answer nothing; time every call, at both ends."""
    verdicts, facts = [], {}
    for place, store in enumerate(STORES):
        chosen, answers = random.Random(seed + place), Answers()
        offsets = {server: scene.stack.directory.log(server).stat().st_size for server in scene.ops}
        scene.proxies[store].fault = Fault.BLACK_HOLE

        async def one(number: int, chosen: random.Random = chosen, answers: Answers = answers) -> None:
            channel = scene.brain if number % 2 else scene.memory
            await _timed(Caller(channel, chosen.choice(homes), chosen, answers), "brain" if number % 2 else "memory")

        await in_turn(calls, min(AT_ONCE, calls), one)
        # Whatever a server still works on must have ended by now.
        await asyncio.sleep(GRACE_S)
        longest_s, served = _served(scene, offsets)
        await scene.healed()
        slow = [f"{took_s:.2f} s in the {what}" for what, took_s in served if took_s > DEADLINE_S + GRACE_S]
        told = f"{answers.counts['answered']} answered, {answers.counts['failed']} refused"
        verdicts += [
            Verdict.none(f"{store}: every caller had its answer in time", answers.late, f"{calls} calls ({told})"),
            Verdict.none(f"{store}: no server worked on beyond the deadline", slow, f"{len(served)} calls"),
            Verdict.none(f"{store}: no answer was wrong", answers.wrong, told),
        ]
        facts[f"{store} silent: longest call, at the caller and in a server"] = (
            f"{answers.longest_s:.2f} s, {longest_s:.2f} s"
        )
    return Part(f"stores that answer nothing, deadline {DEADLINE_S:g} s", verdicts, facts)


async def _timed(caller: Caller, server: str) -> None:
    began = time.monotonic()
    try:
        await caller.call(DEADLINE_S)
    except grpc.aio.AioRpcError as failed:
        caller.answers.counts["failed"] += 1
        if failed.code() not in AWAY:
            caller.answers.wrong.append(f"the {server} answered {failed.code().name}: {failed.details()}")
    took_s = time.monotonic() - began
    caller.answers.longest_s = max(caller.answers.longest_s, took_s)
    if took_s > DEADLINE_S + GRACE_S:
        caller.answers.late.append(f"{took_s:.2f} s at the {server}")


def _served(scene: Scene, offsets: dict[str, int]) -> tuple[float, list[tuple[str, float]]]:
    """How long servers worked on each call of memories that ended since, by their logs."""
    served = []
    for server, offset in offsets.items():
        content = scene.stack.directory.log(server).read_bytes()[offset:]
        for line in content.splitlines():
            if b'"message":"call"' in line and b"/soma.memory.v1.MemoryService/" in line:
                # The development key is the supervisor's, which has deadlines of its own.
                told = json.loads(line)
                if told.get("tenant") != scene.stack.tenant:
                    served.append((f"{server}: {told['method']}", told["duration_ms"] / 1e3))
    return max((took_s for _, took_s in served), default=0.0), served

"""The memory server dies, or its answers get lost, while agents write: nothing acknowledged is lost or doubled.

SOMA_TEST_WRITES sets how many writes there are, SOMA_TEST_AWAY_S for how long the memory server stays away.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass, field

import grpc
import pytest

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.common.v1 import errors_pb2, types_pb2
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.ids import new_memory_id
from tests.support.brains import TRY_AGAIN, brain_beside, key_of, memory_away, until_delivered
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.stack import Agent, Found, Office

pytestmark = pytest.mark.processes

CLIENTS = 16
KEYS = 3
WRITES = int(os.environ.get("SOMA_TEST_WRITES", "320"))
AWAY_S = float(os.environ.get("SOMA_TEST_AWAY_S", "3"))


@dataclass
class Diary:
    """What agents were told: every text that was acknowledged by its memory id, every number by its key."""

    agent: Agent
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    queued: int = 0
    acknowledged: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, client: int, count: int) -> None:
        """Write as one client does, one after the other: new memories, and versions of its own keys."""
        for number in range(count):
            key = f"client-{client}.key-{number % KEYS}" if number % 2 else ""
            text = f"client {client} wrote line {number}"
            request = pb.RememberRequest(
                memory=memory_pb2.Memory(text=text, key=key), request_id=f"w-{client}-{number}"
            )
            answer = await until_acknowledged(self.agent, request)
            self.acknowledged += 1
            self.queued += answer.durability == types_pb2.DURABILITY_QUEUED
            if key:
                self.numbers[key].append(number)
            else:
                self.texts[answer.memory.memory_id] = text
            if self.acknowledged >= WRITES // 4:
                self.progress.set()

    async def check_recalls(self, stop: asyncio.Event) -> int:
        """Recall what was written last, again and again; return how often it was answered in an outage."""
        degraded = 0
        while not stop.is_set():
            memory_id, text = next(reversed(self.texts.items()), ("", ""))
            if not memory_id:
                await asyncio.sleep(0)
                continue
            try:
                found = await self.agent.recall(text, limit=5)
            except grpc.aio.AioRpcError as failed:
                if failed.code() not in TRY_AGAIN:
                    raise
                continue
            assert found.ids, "an outage with nothing to answer is an error, never an empty success"
            assert found.summary.degraded or memory_id in found.ids, "an acknowledged write is found"
            degraded += found.summary.degraded
        return degraded


async def until_acknowledged(agent: Agent, request: pb.RememberRequest) -> pb.RememberResponse:
    """Write as a client does: the same request again until it is acknowledged."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await agent.memory.Remember(request, metadata=agent.metadata, timeout=5, wait_for_ready=True)
            except grpc.aio.AioRpcError as failed:
                if failed.code() not in TRY_AGAIN:
                    raise


async def check_diary(diary: Diary, truth: Agent) -> None:
    """Compare what was acknowledged with what the memory server holds."""
    held: dict[str, memory_pb2.Memory] = {}
    token = ""
    while True:
        page = await truth.memory.List(
            pb.ListRequest(page_size=1000, page_token=token), metadata=truth.metadata, timeout=20
        )
        held.update({memory.memory_id: memory for memory in page.memories})
        token = page.next_page_token
        if not token:
            break
    unkeyed = {memory_id: memory for memory_id, memory in held.items() if not memory.key}
    assert diary.texts == {memory_id: memory.text for memory_id, memory in unkeyed.items()}
    assert {1} == {memory.version for memory in unkeyed.values()}, "each was stored once"
    keyed = {memory.key: memory for memory in held.values() if memory.key}
    assert sorted(diary.numbers) == sorted(keyed)
    for key, numbers in diary.numbers.items():
        past = await truth.memory.History(
            pb.HistoryRequest(memory_id=keyed[key].memory_id, page_size=1000), metadata=truth.metadata, timeout=20
        )
        stored = [int(version.text.rpartition(" ")[2]) for version in reversed(past.versions)]
        assert numbers[-len(stored) :] == stored, "versions are in the order in which they were acknowledged"
        assert len(numbers) == keyed[key].version, "each was stored once"


@pytest.mark.parametrize("brain_dies_too", [False, True])
async def test_writes_survive_a_memory_server_that_is_killed_and_stays_away(
    own_office: Office, brain_dies_too: bool
) -> None:
    office = own_office
    diary = Diary(await office.agent())
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        recalling = group.create_task(diary.check_recalls(stop))
        async with asyncio.TaskGroup() as writers:
            for client in range(CLIENTS):
                writers.create_task(diary.write(client, WRITES // CLIENTS))
            await diary.progress.wait()
            async with memory_away(office.stack):
                if brain_dies_too:
                    await office.stack.kill("brain")
                    await office.stack.ready("brain")
                # How long the outage is, not what it is waited for.
                await asyncio.sleep(AWAY_S)
        stop.set()
    assert diary.queued > 0, "the outage was felt"
    await until_delivered(diary.agent, office.admin_metadata)
    await check_diary(diary, Agent(office.memory, key_of(diary.agent), diary.agent.tenant))
    assert recalling.result() > 0, "and recalled through"


async def test_outbox_replay_no_duplicates(own_office: Office) -> None:
    office = own_office
    agent = await office.agent()
    host, _, port = office.stack.memory_address.rpartition(":")
    async with (
        FaultProxy(host, int(port)) as proxy,
        brain_beside(office.stack, memory_target=f"127.0.0.1:{proxy.port}") as brain,
    ):
        diary = Diary(Agent(brain.channel, key_of(agent), agent.tenant))
        await diary.write(0, 2)
        proxy.fault = Fault.DROP_REPLIES
        # Committed, but nobody is told: each of these is answered QUEUED and sent again and again.
        async with asyncio.TaskGroup() as writers:
            for client in range(1, 5):
                writers.create_task(diary.write(client, 6))
        assert diary.queued == 24
        proxy.fault = Fault.CUT
        await brain.restart_after_kill()
        proxy.fault = Fault.PASS
        await until_delivered(diary.agent, office.admin_metadata)
    await check_diary(diary, Agent(office.memory, key_of(agent), agent.tenant))


async def test_queued_writes_are_answered_for_at_once_while_the_breaker_is_open(own_office: Office) -> None:
    office = own_office
    agent = await office.agent()
    await agent.remember("before the outage")
    async with memory_away(office.stack):
        for number in range(8):
            await agent.remember(f"opens the breaker {number}")
        loop = asyncio.get_running_loop()
        started = loop.time()
        answers = [await agent.remember(f"during the outage {number}") for number in range(20)]
        took_s = loop.time() - started
        assert {types_pb2.DURABILITY_QUEUED} == {answer.durability for answer in answers}
        assert took_s < 5.0, "nobody waited for a server that is known to be away"
        found: Found = await agent.recall("during the outage 7", limit=1)
        assert [answers[7].memory.memory_id] == found.ids
        assert found.summary.degraded
        read = await agent.get(answers[3].memory.memory_id)
        assert "during the outage 3" == read.text
    await until_delivered(agent, office.admin_metadata)


async def test_a_write_refused_after_the_outage_is_a_dead_letter_to_be_sent_again_or_discarded(
    own_office: Office,
) -> None:
    office, admin = own_office, own_office.admin_metadata
    agent = await office.agent()
    await agent.remember("known before the outage")
    ids = [new_memory_id(), new_memory_id()]

    async def dead() -> dict[str, operator_pb.DeadLetter]:
        request = operator_pb.ListDeadLettersRequest(tenant=agent.tenant)
        told = await agent.operator.ListDeadLetters(request, metadata=admin, timeout=10)
        return {letter.memory_ids[0]: letter for letter in told.dead_letters}

    async with memory_away(office.stack):
        for memory_id in ids:
            target = types_pb2.MemoryTarget(memory_id=memory_id)
            change = pb.UpdateRequest(target=target, memory=memory_pb2.Memory(text="changed"))
            change.update_mask.paths.append("text")
            answer = await agent.memory.Update(change, metadata=agent.metadata, timeout=20)
            assert types_pb2.DURABILITY_QUEUED == answer.durability
    async with asyncio.timeout(60):
        while len(found := await dead()) < len(ids):  # noqa: ASYNC110 - a list does not tell that it changed
            await asyncio.sleep(0.05)
    assert {"MEMORY_NOT_FOUND"} == {
        errors_pb2.ErrorReason.Name(letter.error.reason).removeprefix("ERROR_REASON_") for letter in found.values()
    }
    # Past the brain, hence without a time of origin: one that is later than the letter's would win over it.
    await Agent(office.memory, key_of(agent), agent.tenant).remember("now it is there", memory_id=ids[0])
    again = operator_pb.ReplayDeadLettersRequest(entry_ids=[found[ids[0]].entry_id])
    assert 1 == (await agent.operator.ReplayDeadLetters(again, metadata=admin, timeout=10)).replayed
    gone = operator_pb.DiscardDeadLettersRequest(entry_ids=[found[ids[1]].entry_id], cause="nobody needs it")
    assert 1 == (await agent.operator.DiscardDeadLetters(gone, metadata=admin, timeout=10)).discarded
    await until_delivered(agent, admin)
    assert {} == await dead()
    assert "changed" == (await agent.get(ids[0])).text

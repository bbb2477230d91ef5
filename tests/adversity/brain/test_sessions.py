"""Working memory when its brain is killed, stopped, drained or replaced by another one.

SOMA_TEST_SESSIONS sets how many full sessions have to come back.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from hashlib import blake2b
from itertools import count

import grpc
import numpy as np
import pytest

from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.item import ItemKind, Observation
from brain_server.domain.salience import WorkingRules
from brain_server.stores.sqlite.file import BrainFile
from brain_server.stores.sqlite.items import SqliteSessions
from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.common.v1 import types_pb2
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma_contract.tenant import admin_tenant
from tests.integration.brain.agents import Mind, leg_states
from tests.support.brains import brain_beside, key_of, memory_away, until_delivered
from tests.support.stack import Agent, Office

pytestmark = pytest.mark.processes

CAPACITY = WorkingRules().capacity
SESSIONS = int(os.environ.get("SOMA_TEST_SESSIONS", "100"))
_names = count(1)


def told(items: object) -> list[tuple[str, str, int, str, int]]:
    """What must be the same after a restart; salience may miss the last second's uses."""
    return [(item.item_id, item.text, item.sequence, item.memory_id, item.kind) for item in items]  # type: ignore[attr-defined]


async def mind_of(office: Office) -> Mind:
    return Mind(office.brain, await office.agent(), f"killed-{next(_names)}")


async def test_wm_persists_across_restart(own_office: Office) -> None:
    mind = await mind_of(own_office)
    texts = [unlike(number) for number in range(60)]
    answers = await mind.observe(*texts)
    await mind.working.PromoteItems(pb.PromoteItemsRequest(item_ids=[answers[5].item.item_id]), metadata=mind.metadata)
    await mind.recall(texts[7], legs=[memory_pb.RECALL_LEG_WORKING])
    before = await mind.items(page_size=1000)
    await own_office.stack.kill("brain")
    await own_office.stack.ready("brain")
    after = await mind.items(page_size=1000)
    assert told(before) == told(after)
    assert all(new.salience <= old.salience + 1e-6 for old, new in zip(before, after, strict=True))
    assert all(new.salience >= 0.8 * old.salience for old, new in zip(before, after, strict=True))
    async with mind.observing() as watcher:
        assert (True, 60) == (watcher.opened.resumed, watcher.opened.sequence)
        again = await watcher.see(texts[59], sequence=60)
        assert (True, answers[59].item.item_id) == (again.already_observed, again.item.item_id)


async def test_every_answered_observation_survives_a_kill_in_the_middle_of_its_stream(own_office: Office) -> None:
    mind = await mind_of(own_office)
    answered: list[pb.Observed] = []
    async with mind.observing() as watcher:

        async def feed() -> None:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for number in range(400):
                    await watcher.send(unlike(number), reward=0.9)

        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feed())
            with suppress(grpc.aio.AioRpcError):
                while len(answered) < 400:
                    answered.append((await watcher.read()).observed)
                    if len(answered) == 40:
                        await own_office.stack.kill("brain")
            feeding.cancel()
    assert 40 <= len(answered) < 400, "the kill came in the middle"
    await own_office.stack.ready("brain")
    kept = {item.item_id for item in await mind.items(page_size=1000)}
    evicted = {item_id for answer in answered for item_id in answer.evicted_item_ids}
    told_of = {answer.item.item_id for answer in answered}
    missing = told_of - kept - evicted
    # Full, each observation that was taken and not answered any more may have evicted one that was.
    assert len(missing) <= len(kept - told_of)
    assert not missing or len(kept) == CAPACITY
    assert not kept & evicted
    async with mind.observing() as watcher:
        assert watcher.opened.sequence >= answered[-1].sequence


async def test_wm_restoration_within_5_seconds(own_office: Office) -> None:
    agent = await own_office.agent()
    tenant = admin_tenant(agent.tenant, reason="tests")
    loop = asyncio.get_running_loop()
    async with brain_beside(own_office.stack) as brain:
        await brain.child.stop()
        async with BrainFile(brain.directory.place("brain")) as file:
            working = WorkingMemory(SqliteSessions(file))
            await working.load()
            vectors = np.random.default_rng(1).standard_normal((128, 384)).astype(np.float32)
            for session in range(SESSIONS):
                texts = [f"{session} saw {number}" for number in range(128)]
                seen = [
                    Observation(ItemKind.THOUGHT, text, vector, 0.5, sequence=number)
                    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), start=1)
                ]
                await working.observe(tenant, f"full-{session}", seen)
            expected = {
                f"full-{session}": [item.item_id for item in await working.items(tenant, f"full-{session}")]
                for session in range(SESSIONS)
            }
        await brain.child.start()
        started = loop.time()
        minds = [Mind(brain.channel, Agent(brain.channel, key_of(agent), agent.tenant), name) for name in expected]
        found = {}
        for start in range(0, SESSIONS, 16):
            some = minds[start : start + 16]
            listed = await asyncio.gather(*(mind.items(page_size=1000) for mind in some))
            found.update({mind.session: [i.item_id for i in items] for mind, items in zip(some, listed, strict=True)})
        took_s = loop.time() - started
    assert expected == found
    assert {128} == {len(ids) for ids in found.values()}
    assert took_s <= 5.0


async def test_sessions_go_on_in_an_outage_and_their_promotions_are_queued(own_office: Office) -> None:
    mind = await mind_of(own_office)
    await mind.observe("noted before the outage", reward=0.9)
    async with memory_away(own_office.stack):
        (seen,) = await mind.observe("noted during the outage", reward=0.9)
        found = await mind.recall("what was noted?")
        assert {"noted before the outage", "noted during the outage"} == set(found.texts)
        assert found.summary.degraded
        assert "RAN" == leg_states(found)["working"]
        answer = await mind.working.PromoteItems(
            pb.PromoteItemsRequest(item_ids=[seen.item.item_id]), metadata=mind.metadata, timeout=10
        )
        assert types_pb2.DURABILITY_QUEUED == answer.promotions[0].durability
        fresh = Mind(own_office.brain, mind_agent(own_office, mind), "opened-in-the-outage")
        assert (await fresh.observe("a session that nobody could be asked about"))[0].admitted
    agent = mind_agent(own_office, mind, through=own_office.memory)
    await until_delivered(mind_agent(own_office, mind), own_office.admin_metadata)
    memory = await agent.get(seen.item.item_id)
    assert ("noted during the outage", 1) == (memory.text, memory.version)


@pytest.mark.parametrize("ending", ["drain", "sigterm"])
async def test_another_brain_takes_over_what_a_drained_one_leaves(own_office: Office, ending: str) -> None:
    agent = await own_office.agent()
    async with brain_beside(own_office.stack) as first, brain_beside(own_office.stack) as second:
        old = Mind(first.channel, Agent(first.channel, key_of(agent), agent.tenant), "moving")
        new = Mind(second.channel, Agent(second.channel, key_of(agent), agent.tenant), "moving")
        await old.observe(*(unlike(number) for number in range(20)))
        before = await old.items(page_size=1000)
        if ending == "drain":
            operator = operator_rpc.OperatorServiceStub(first.channel)
            pid = first.child.pid
            await operator.Drain(operator_pb.DrainRequest(), metadata=own_office.admin_metadata, timeout=10)
            async with asyncio.timeout(40):
                while first.child.pid == pid:  # noqa: ASYNC110 - a process does not tell that it ends
                    await asyncio.sleep(0.05)
        await first.child.stop()
        after = await new.items(page_size=1000)
        assert told(before) == told(after)
        async with new.observing() as watcher:
            assert watcher.opened.resumed
            await watcher.see("a step at the new place")
        # Back at the old place, which has an older state on its file.
        await mirrored(own_office, agent, "moving", 21)
        await first.child.start()
        assert "a step at the new place" == (await old.items(page_size=1000))[-1].text


async def test_a_brain_that_is_stopped_in_order_loses_not_even_the_last_use(own_office: Office) -> None:
    agent = await own_office.agent()
    async with brain_beside(own_office.stack) as brain:
        mind = Mind(brain.channel, Agent(brain.channel, key_of(agent), agent.tenant), "orderly")
        await mind.observe("used once more at the last moment")
        await mind.recall("used once more", legs=[memory_pb.RECALL_LEG_WORKING])
        await brain.child.kill(signal.SIGTERM)
        await brain.child.ready()
        assert [1] == [item.uses for item in await mind.items()]


def unlike(number: int) -> str:
    """A text that shares no word with that of another number."""
    digest = blake2b(str(number).encode(), digest_size=12).hexdigest()
    return " ".join(digest[start : start + 4] for start in range(0, 24, 4))


def mind_agent(office: Office, mind: Mind, *, through: grpc.aio.Channel | None = None) -> Agent:
    """The agent whose mind it is."""
    metadata = dict(mind.metadata)
    key = metadata["authorization"].removeprefix("Bearer ")
    return Agent(through or office.brain, key, metadata["soma-tenant"])


async def mirrored(office: Office, agent: Agent, session: str, sequence: int) -> None:
    """Wait until the memory server has a session's snapshot up to a number."""
    from soma.memory.v1 import session_service_pb2, session_service_pb2_grpc

    sessions = session_service_pb2_grpc.SessionServiceStub(office.memory)
    credential = (office.stack.directory.place("secrets") / "brain.key").read_text()
    metadata = [("authorization", f"Bearer {credential}"), ("soma-tenant", agent.tenant)]
    async with asyncio.timeout(20):
        while True:
            held = await sessions.LoadSession(
                session_service_pb2.LoadSessionRequest(session_id=session), metadata=metadata, timeout=5
            )
            if held.snapshot.sequence >= sequence:
                return
            await asyncio.sleep(0.05)

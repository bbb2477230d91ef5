"""A collection is made anew, or moved to another embedding model, while agents write and recall."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from memory_server.domain.index_tasks import Scope, TaskKind, TaskState
from soma_contract.memory import Forget, Target
from soma_contract.recall import Leg, LegState
from soma_contract.tenant import Tenant
from tests.integration.index.workshop import DIMENSION, OTHER_DIMENSION, Workshop, running

pytestmark = pytest.mark.stores

ROWS = int(os.environ.get("SOMA_TEST_INDEX_ROWS", "2000"))
"""The guarantee speaks of 20,000; SOMA_TEST_INDEX_ROWS=20000 shows it."""
REBUILD = Scope(TaskKind.REBUILD)


@asynccontextmanager
async def living(workshop: Workshop, tenant: Tenant, stored: list[str]) -> AsyncIterator[Counter[str]]:
    """Agents that write, forget and recall; counts what they did and what went wrong."""
    counts: Counter[str] = Counter()

    async def write() -> None:
        while True:
            counts["writes"] += 1
            text = f"written meanwhile {counts['writes']}"
            (memory,) = await workshop.remember(tenant, [text])
            found = await workshop.recalled(tenant, text)
            counts["unseen"] += [hit.memory.memory_id for hit in found.hits] != [memory.memory_id]
            if counts["writes"] % 4 == 0:
                await workshop.journal.write(tenant, [Forget(Target(memory_id=memory.memory_id))])
                found = await workshop.recalled(tenant, text, limit=5)
                counts["undead"] += any(hit.memory.memory_id == memory.memory_id for hit in found.hits)

    async def recall() -> None:
        while True:
            text = stored[counts["recalls"] * 37 % len(stored)]
            counts["recalls"] += 1
            found = await workshop.recalled(tenant, text)
            counts["wrong"] += [hit.memory.text for hit in found.hits] != [text]
            counts["degraded"] += found.summary.degraded

    async with running(write), running(recall):
        yield counts


async def test_a_collection_is_made_anew_under_live_recall_without_a_wrong_answer(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    stored = [f"note {number} of the harbour" for number in range(ROWS)]
    await workshop.remember(tenant, stored)
    await workshop.indexed(long_ago=True)
    before = await workshop.collection(tenant)

    async with living(workshop, tenant, stored) as counts:
        task = await workshop.done(REBUILD)
    after = await workshop.collection(tenant)
    assert (TaskState.DONE, "") == (task.state, task.reason)
    assert task.done >= ROWS
    assert (before.name != after.name, before.epoch < after.epoch) == (True, True)
    assert (0, 0, 0, 0) == (counts["wrong"], counts["unseen"], counts["undead"], counts["degraded"])
    assert counts["recalls"] > 10

    await workshop.indexed()
    assert 0 == (await workshop.reconciled()).differences.missing
    assert 0 == (await workshop.reconciled()).differences.found
    assert not await workshop.index.ensure(after)
    with pytest.raises(Exception, match=before.name):
        await workshop.index.count(before)


async def test_the_next_rebuild_goes_back_to_the_first_name(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    await workshop.remember(tenant, ["one", "two"])
    await workshop.indexed()
    first = await workshop.collection(tenant)
    await workshop.done(REBUILD)
    await workshop.done(REBUILD)
    last = await workshop.collection(tenant)
    assert (first.name, 2) == (last.name, len(await workshop.held(last)))


async def test_one_tenants_rows_are_written_again_in_their_place(workshop: Workshop) -> None:
    ours, theirs = await workshop.tenant("ours"), await workshop.tenant("theirs")
    await workshop.remember(ours, [f"note {number}" for number in range(300)])
    await workshop.remember(theirs, ["other"])
    await workshop.indexed()
    collection = await workshop.collection(ours)
    task = await workshop.done(Scope(TaskKind.REBUILD, "ours"))
    assert (TaskState.DONE, 300, 300) == (task.state, task.done, task.total)
    assert collection == await workshop.collection(ours)
    assert 301 == len(await workshop.held(collection))


async def test_a_rebuild_whose_server_dies_is_gone_on_with(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    stored = [f"note {number}" for number in range(600)]
    await workshop.remember(tenant, stored)
    await workshop.indexed()
    task = await workshop.jobs.start(REBUILD)
    async with running(workshop.jobs.step):
        while (await workshop.jobs.get(task.task_id)).done < 200:
            pass
    async with workshop.pools.bulk.worker() as connection:
        await connection.execute("UPDATE index_tasks SET leased_until = now() - interval '1 second'")
    died = await workshop.jobs.get(task.task_id)
    task = await workshop.done(REBUILD)
    assert (died.task_id, TaskState.DONE) == (task.task_id, task.state)
    assert died.done < 600
    assert 600 == task.done
    assert 600 == len(await workshop.held(await workshop.collection(tenant)))


async def test_a_tenant_moves_to_another_model_under_live_recall_without_a_wrong_answer(workshop: Workshop) -> None:
    tenant, neighbour = await workshop.tenant("acme"), await workshop.tenant("neighbour")
    stored = [f"note {number} of the harbour" for number in range(ROWS)]
    await workshop.remember(tenant, stored)
    await workshop.remember(neighbour, ["stays"])
    await workshop.indexed(long_ago=True)
    before = await workshop.collection(tenant)
    profile = workshop.other.profile

    async with living(workshop, tenant, stored) as counts:
        task = await workshop.done(Scope(TaskKind.RE_EMBED, "acme", profile=profile.key, dimension=profile.dimension))
    after = await workshop.collection(tenant)
    assert (TaskState.DONE, "") == (task.state, task.reason)
    assert (DIMENSION, OTHER_DIMENSION) == (before.dimension, after.dimension)
    assert (0, 0, 0, 0) == (counts["wrong"], counts["unseen"], counts["undead"], counts["degraded"])
    assert before == await workshop.collection(neighbour)

    await workshop.indexed()
    assert 0 == (await workshop.reconciled()).differences.missing
    assert {"neighbour"} == {name for name, _ in await workshop.held(before)}
    found = await workshop.recalled(tenant, stored[0])
    assert LegState.RAN == next(leg.state for leg in found.summary.legs if leg.leg is Leg.DENSE)
    async with workshop.pools.bulk.worker() as connection:
        profiles = await connection.fetch("SELECT DISTINCT tenant, profile FROM memory_vectors ORDER BY tenant")
    assert [("acme", profile.key), ("neighbour", before.profile)] == [tuple(row) for row in profiles]


async def test_all_tenants_move_and_new_memories_are_embedded_by_the_new_model(workshop: Workshop) -> None:
    tenants = [await workshop.tenant(name) for name in ("a", "b", "c")]
    for tenant in tenants:
        await workshop.remember(tenant, [f"{tenant} {number}" for number in range(20)])
    await workshop.indexed()
    profile = workshop.other.profile
    await workshop.done(Scope(TaskKind.RE_EMBED, profile=profile.key, dimension=profile.dimension))
    collections = {await workshop.collection(tenant) for tenant in tenants}
    assert {profile.key} == {collection.profile for collection in collections}
    await workshop.remember(tenants[0], ["new"])
    await workshop.indexed()
    assert 61 == len(await workshop.held(collections.pop()))


async def test_a_profile_older_than_the_collection_left_is_rebuilt_before_it_takes_rows(workshop: Workshop) -> None:
    first, second = await workshop.tenant("first"), await workshop.tenant("second")
    await workshop.remember(first, ["one"])
    await workshop.remember(second, ["two"])
    await workshop.indexed()
    profile = workshop.other.profile
    await workshop.done(Scope(TaskKind.RE_EMBED, "first", profile=profile.key, dimension=profile.dimension))
    await workshop.done(Scope(TaskKind.REBUILD, collection=(await workshop.collection(second)).name))
    await workshop.done(Scope(TaskKind.RE_EMBED, "second", profile=profile.key, dimension=profile.dimension))
    collection = await workshop.collection(second)
    assert collection == await workshop.collection(first)
    assert {"first", "second"} == {name for name, _ in await workshop.held(collection)}
    assert 0 == (await workshop.reconciled()).differences.found


async def test_what_is_poisoned_is_tried_again_when_asked_to(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    (memory,) = await workshop.remember(tenant, ["refused"])
    async with workshop.pools.bulk.worker() as connection:
        await connection.execute(
            "UPDATE index_jobs SET poisoned = true, attempts = 8, due_at = now() + interval '1 hour', reason = 'X'"
        )
    (row,) = await workshop.jobs.tasks.poisoned("acme", after=None, limit=10)
    assert (memory.memory_id, 8, "X") == (row.memory_id, row.attempts, row.reason)
    assert [] == await workshop.jobs.tasks.poisoned("acme", after=row, limit=10)
    assert [] == await workshop.jobs.tasks.poisoned("other", after=None, limit=10)
    task = await workshop.done(Scope(TaskKind.REBUILD, poisoned_only=True))
    await workshop.indexed()
    assert (1, TaskState.DONE) == (task.done, task.state)
    assert [] == await workshop.jobs.tasks.poisoned("", after=None, limit=10)

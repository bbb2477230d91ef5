"""The index may lose, keep and invent rows: the reconciler finds every one and has it put right."""

from __future__ import annotations

import os
import random
import time

import pytest

from memory_server.domain.index_tasks import Differences, Scope, TaskKind, TaskState
from soma_contract.ids import new_memory_id
from soma_contract.memory import Forget, Memory, Target
from tests.integration.index.workshop import Workshop, running

pytestmark = pytest.mark.stores

ROWS = int(os.environ.get("SOMA_TEST_INDEX_ROWS", "2000"))
"""The guarantee speaks of 20,000; SOMA_TEST_INDEX_ROWS=20000 shows it."""
REPAIRED_WITHIN_S = 60.0


async def test_a_healthy_index_has_no_differences(workshop: Workshop) -> None:
    tenants = [await workshop.tenant(name) for name in ("ab", "abc", "ab-c", "ab.c")]
    for tenant in tenants:
        await workshop.remember(tenant, [f"{tenant} knows {number}" for number in range(30)])
    await workshop.indexed()
    task = await workshop.reconciled()
    assert (TaskState.DONE, Differences(compared=120)) == (task.state, task.differences)


async def test_rows_that_the_indexer_has_not_reached_yet_are_no_differences(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    await workshop.remember(tenant, ["indexed"])
    await workshop.indexed()
    (waiting,) = await workshop.remember(tenant, ["waiting"])
    scope = Scope(TaskKind.RECONCILE, repair=True)
    task = await workshop.jobs.start(scope)
    assert await workshop.jobs.step()
    task = await workshop.jobs.get(task.task_id)
    assert (scope, 0) == (task.scope, task.differences.found)
    assert ("acme", waiting.memory_id) not in await workshop.held(await workshop.collection(tenant))


async def test_a_tenth_of_the_rows_corrupted_four_ways_is_found_and_repaired(workshop: Workshop) -> None:
    chosen = random.Random(20)
    tenants = [await workshop.tenant(f"tenant-{number}") for number in range(8)]
    stored = {
        tenant: await workshop.remember(tenant, [f"{tenant} keeps note {number}" for number in range(ROWS // 8)])
        for tenant in tenants
    }
    await workshop.indexed()
    collection = await workshop.collection(tenants[0])
    truth = await workshop.held(collection)
    assert ROWS == len(truth)

    each = ROWS // 40
    for tenant in tenants:
        memories = stored[tenant]
        chosen.shuffle(memories)
        share = each // 8
        missing, outdated, copied = memories[:share], memories[share : 2 * share], memories[2 * share : 3 * share]
        await workshop.index.remove(collection, [(tenant, memory.memory_id) for memory in missing])
        await workshop.plant(collection, tenant, outdated, version=7)
        invented = [Memory(memory_id=new_memory_id(), text="never said", version=1) for _ in range(share)]
        await workshop.plant(collection, tenant, invented, version=1)
        neighbour = tenants[(tenants.index(tenant) + 1) % len(tenants)]
        await workshop.plant(collection, neighbour, copied, version=1)
    each = each // 8 * 8

    started = time.monotonic()
    task = await workshop.reconciled()
    took_s = time.monotonic() - started
    found = task.differences
    assert (each, each, 2 * each) == (found.missing, found.outdated, found.orphaned)
    assert 4 * each == found.repaired
    assert truth == await workshop.held(collection)
    assert took_s < REPAIRED_WITHIN_S


async def test_without_repair_differences_are_only_counted(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    first, second = await workshop.remember(tenant, ["one", "two"])
    await workshop.indexed()
    collection = await workshop.collection(tenant)
    await workshop.index.remove(collection, [(tenant, first.memory_id)])
    await workshop.plant(collection, tenant, [second], version=9)
    before = await workshop.held(collection)
    task = await workshop.reconciled(repair=False)
    assert Differences(compared=2, missing=1, outdated=1) == task.differences
    assert before == await workshop.held(collection)


async def test_a_row_of_a_forgotten_memory_leaves_the_index(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    (memory,) = await workshop.remember(tenant, ["to be forgotten"])
    await workshop.indexed()
    collection = await workshop.collection(tenant)
    await workshop.journal.write(tenant, [Forget(Target(memory_id=memory.memory_id))])
    await workshop.indexed()
    await workshop.plant(collection, tenant, [memory], version=1)
    task = await workshop.reconciled()
    assert (1, 1) == (task.differences.orphaned, task.differences.repaired)
    assert {} == await workshop.held(collection)


async def test_rows_of_a_tenant_nobody_knows_leave_the_index(workshop: Workshop) -> None:
    tenant, unknown = await workshop.tenant("acme"), await workshop.tenant("nobody")
    (memory,) = await workshop.remember(tenant, ["ours"])
    await workshop.indexed()
    collection = await workshop.collection(tenant)
    await workshop.plant(collection, unknown, [memory], version=1)
    task = await workshop.reconciled()
    assert (1, 1) == (task.differences.orphaned, task.differences.repaired)
    assert {("acme", memory.memory_id): 1} == await workshop.held(collection)


async def test_only_the_tenant_asked_for_is_compared(workshop: Workshop) -> None:
    ours, theirs = await workshop.tenant("ours"), await workshop.tenant("theirs")
    (one,), (other,) = await workshop.remember(ours, ["a"]), await workshop.remember(theirs, ["b"])
    await workshop.indexed()
    collection = await workshop.collection(ours)
    await workshop.index.remove(collection, [(ours, one.memory_id), (theirs, other.memory_id)])
    task = await workshop.reconciled(tenant="ours")
    assert Differences(compared=1, missing=1, repaired=1) == task.differences
    assert {("ours", one.memory_id): 1} == await workshop.held(collection)


async def test_a_wiped_collection_is_filled_again(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    memories = await workshop.remember(tenant, [f"note {number}" for number in range(40)])
    await workshop.indexed()
    collection = await workshop.collection(tenant)
    await workshop.index.drop(collection.name)
    task = await workshop.reconciled()
    await workshop.indexed()
    assert TaskState.DONE == task.state
    assert {("acme", memory.memory_id) for memory in memories} == {
        *await workshop.held(await workshop.collection(tenant))
    }


async def test_nothing_is_taken_for_a_difference_while_agents_write(workshop: Workshop) -> None:
    tenant = await workshop.tenant("acme")
    await workshop.remember(tenant, [f"note {number}" for number in range(300)])
    await workshop.indexed()
    found = Differences()

    async def write() -> None:
        number = 0
        while True:
            number += 1
            written = await workshop.remember(tenant, [f"note {number % 400}", f"note {300 + number % 60}"])
            if number % 3 == 0:
                await workshop.journal.write(tenant, [Forget(Target(memory_id=written[1].memory_id))])

    async with running(write):
        for _ in range(5):
            found += (await workshop.reconciled(repair=False)).differences
    assert 0 == found.found

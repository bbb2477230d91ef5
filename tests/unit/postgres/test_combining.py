"""Write combining, with a commit that the test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from memory_server.stores.postgres.combining import Combining, Waiting
from soma_contract.errors import BudgetSpentError, DrainingError, InternalError, WriteConflictError
from soma_contract.tenant import Tenant, admin_tenant

ACME = admin_tenant("acme", reason="tests")
GLOBEX = admin_tenant("globex", reason="tests")


class Gate:
    """A commit that waits to be let through and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.begun = asyncio.Semaphore(0)
        self.open = asyncio.Semaphore(0)

    async def commit(self, tenant: Tenant, waiting: Sequence[Waiting[int, int]]) -> None:
        self.batches.append((tenant.name, [one.work for one in waiting]))
        self.begun.release()
        await self.open.acquire()
        for one in waiting:
            if not one.answer.done():
                one.answer.set_result(one.work * 10)


async def test_a_lone_call_starts_at_once_and_company_goes_together() -> None:
    gate = Gate()
    async with Combining[int, int](gate.commit) as combining, asyncio.TaskGroup() as calls:
        first = calls.create_task(combining.submit(ACME, 1, weight=1, deadline_s=60))
        await gate.begun.acquire()
        others = [calls.create_task(combining.submit(ACME, n, weight=1, deadline_s=60)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        gate.open.release()
        await gate.begun.acquire()
        gate.open.release()
        assert [10, 20, 30, 40] == [await call for call in (first, *others)]
    assert [("acme", [1]), ("acme", [2, 3, 4])] == gate.batches


async def test_tenants_do_not_wait_for_each_other() -> None:
    gate = Gate()
    async with Combining[int, int](gate.commit) as combining, asyncio.TaskGroup() as calls:
        calls.create_task(combining.submit(ACME, 1, weight=1, deadline_s=60))
        calls.create_task(combining.submit(GLOBEX, 2, weight=1, deadline_s=60))
        await gate.begun.acquire()
        await gate.begun.acquire()
        assert [("acme", [1]), ("globex", [2])] == gate.batches
        gate.open.release()
        gate.open.release()


async def test_a_batch_is_limited_by_weight_but_never_empty() -> None:
    gate = Gate()
    async with Combining[int, int](gate.commit, weight=5) as combining, asyncio.TaskGroup() as calls:
        for number, weight in enumerate((1, 2, 3, 2, 9, 1)):
            calls.create_task(combining.submit(ACME, number, weight=weight, deadline_s=60))
        for _ in range(4):
            await gate.begun.acquire()
            gate.open.release()
    assert [[0, 1], [2, 3], [4], [5]] == [batch for _, batch in gate.batches]


async def test_a_call_whose_time_is_spent_is_left_out() -> None:
    gate = Gate()
    async with Combining[int, int](gate.commit) as combining, asyncio.TaskGroup() as calls:
        first = calls.create_task(combining.submit(ACME, 1, weight=1, deadline_s=60))
        await gate.begun.acquire()
        with pytest.raises(BudgetSpentError):
            await combining.submit(ACME, 2, weight=1, deadline_s=0.01)
        third = calls.create_task(combining.submit(ACME, 3, weight=1, deadline_s=60))
        await asyncio.sleep(0)
        gate.open.release()
        gate.open.release()
        assert [10, 30] == [await first, await third]
    assert [[1], [3]] == [batch for _, batch in gate.batches]


async def test_a_cancelled_caller_leaves_a_waiting_line_and_not_a_running_batch() -> None:
    gate = Gate()
    async with Combining[int, int](gate.commit) as combining, asyncio.TaskGroup() as calls:
        running = calls.create_task(combining.submit(ACME, 1, weight=1, deadline_s=60))
        await gate.begun.acquire()
        waiting = calls.create_task(combining.submit(ACME, 2, weight=1, deadline_s=60))
        staying = calls.create_task(combining.submit(ACME, 3, weight=1, deadline_s=60))
        await asyncio.sleep(0)
        running.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        gate.open.release()
        gate.open.release()
        assert 30 == await staying
    assert (True, True) == (running.cancelled(), waiting.cancelled())
    assert [[1], [3]] == [batch for _, batch in gate.batches]


async def test_a_failed_batch_is_told_to_its_callers_and_the_next_one_runs() -> None:
    attempts = []

    async def commit(_: Tenant, waiting: Sequence[Waiting[int, int]]) -> None:
        attempts.append(len(waiting))
        if len(attempts) == 1:
            raise WriteConflictError
        if len(attempts) == 2:
            return
        waiting[0].answer.set_result(7)

    async with Combining[int, int](commit) as combining:
        with pytest.raises(WriteConflictError):
            await combining.submit(ACME, 1, weight=1, deadline_s=60)
        with pytest.raises(InternalError):
            await combining.submit(ACME, 2, weight=1, deadline_s=60)
        assert 7 == await combining.submit(ACME, 3, weight=1, deadline_s=60)


async def test_leaving_waits_for_the_running_batch_and_takes_no_more() -> None:
    gate = Gate()
    combining = Combining[int, int](gate.commit)
    async with asyncio.TaskGroup() as calls:
        async with combining:
            call = calls.create_task(combining.submit(ACME, 1, weight=1, deadline_s=60))
            await gate.begun.acquire()
            gate.open.release()
        assert call.done()
    assert 10 == call.result()
    with pytest.raises(DrainingError):
        await combining.submit(ACME, 2, weight=1, deadline_s=60)


async def test_an_idle_tenant_takes_no_memory() -> None:
    gate = Gate()
    async with Combining[int, int](gate.commit) as combining:
        for number in range(100):
            gate.open.release()
            await combining.submit(admin_tenant(f"t{number}", reason="tests"), 1, weight=1, deadline_s=60)
        await asyncio.sleep(0)
        assert {} == combining._lines

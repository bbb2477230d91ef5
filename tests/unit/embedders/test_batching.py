"""The batcher: who goes first, what is computed once, what a cancelled call leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from soma_contract.embedders import Priority
from soma_contract.embedders.batching import Batcher
from soma_contract.errors import BudgetSpentError, DrainingError, OverloadedError

Work = Callable[[Sequence[str]], list[str]]


class Gate:
    """Work that answers in capitals, holds every batch of a closed gate, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self._started = threading.Semaphore(0)

    def __call__(self, keys: Sequence[str]) -> list[str]:
        self.batches.append(list(keys))
        self._started.release()
        assert self.open.wait(30)
        return [key.upper() for key in keys]

    async def started(self, batches: int = 1) -> None:
        """Wait until that many more batches are running."""
        for _ in range(batches):
            assert await asyncio.to_thread(self._started.acquire, timeout=30)


def batcher(work: Work, *, workers: int = 1, batch_weight: int = 4, max_pending: int = 100) -> Batcher[str, str]:
    return Batcher(work, len, workers=workers, batch_weight=batch_weight, max_pending=max_pending)


async def settled(*calls: asyncio.Future[list[str]]) -> list[object]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_results_come_back_in_order() -> None:
    async with batcher(lambda keys: [key.upper() for key in keys]) as work:
        assert await work.results(["b", "a", "b"]) == ["B", "A", "B"]
        assert await work.results([]) == []


async def test_calls_that_arrive_together_share_a_batch() -> None:
    gate = Gate()
    gate.open.set()
    async with batcher(gate) as work:
        assert await asyncio.gather(*(work.results([key]) for key in "abcd")) == [["A"], ["B"], ["C"], ["D"]]
    assert gate.batches == [["a", "b", "c", "d"]]


async def test_a_batch_is_bounded_by_weight_and_a_heavy_key_goes_alone() -> None:
    gate = Gate()
    gate.open.set()
    async with batcher(gate) as work:
        await work.results(["aa", "bb", "cc", "heavy!!", "d"], priority=Priority.BULK)
    assert gate.batches == [["aa", "bb"], ["cc"], ["heavy!!"], ["d"]]


async def test_a_caller_at_a_prompt_does_not_wait_for_bulk_work() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        bulk = asyncio.ensure_future(work.results(["aaaa", "bbbb"], priority=Priority.BULK))
        await gate.started()
        query = asyncio.ensure_future(work.results(["q"]))
        # The bulk batch is still running: the query got the thread kept for it, the second bulk batch did not.
        await gate.started()
        assert gate.batches == [["aaaa"], ["q"]]
        gate.open.set()
        assert await settled(bulk, query) == [["AAAA", "BBBB"], ["Q"]]


async def test_a_queued_query_goes_before_queued_bulk_work() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        first = asyncio.ensure_future(work.results(["aaaa", "bbbb"], priority=Priority.BULK))
        await gate.started()
        second = asyncio.ensure_future(work.results(["q1q1"]))
        await gate.started()
        third = asyncio.ensure_future(work.results(["q2q2"]))
        gate.open.set()
        await settled(first, second, third)
    assert gate.batches.index(["q2q2"]) < gate.batches.index(["bbbb"])


async def test_a_query_moves_its_key_out_of_the_bulk_queue() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        bulk = asyncio.ensure_future(work.results(["aaaa", "bbbb", "cccc"], priority=Priority.BULK))
        await gate.started()
        query = asyncio.ensure_future(work.results(["cccc"]))
        await gate.started()
        gate.open.set()
        assert await settled(bulk, query) == [["AAAA", "BBBB", "CCCC"], ["CCCC"]]
    assert gate.batches == [["aaaa"], ["cccc"], ["bbbb"]]


async def test_the_same_key_under_way_is_computed_once() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        calls = [asyncio.ensure_future(work.results(["same"])) for _ in range(5)]
        await gate.started()
        calls.append(asyncio.ensure_future(work.results(["same"])))
        gate.open.set()
        assert await settled(*calls) == [["SAME"]] * 6
    assert gate.batches == [["same"]]


async def test_a_cancelled_call_takes_its_keys_out_of_the_queue() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        running = asyncio.ensure_future(work.results(["aaaa"], priority=Priority.BULK))
        await gate.started()
        queued = asyncio.ensure_future(work.results(["bbbb"], priority=Priority.BULK))
        await asyncio.sleep(0)
        queued.cancel()
        with suppress(asyncio.CancelledError):
            await queued
        gate.open.set()
        assert await running == ["AAAA"]
        assert await work.results(["cccc"], priority=Priority.BULK) == ["CCCC"]
    assert gate.batches == [["aaaa"], ["cccc"]]


async def test_cancelling_one_caller_leaves_the_others_their_result() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        first, second = (asyncio.ensure_future(work.results(["same"])) for _ in range(2))
        await gate.started()
        first.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        cancelled, result = await settled(first, second)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert result == ["SAME"]


async def test_the_deadline_bounds_a_call() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        with pytest.raises(BudgetSpentError):
            await work.results(["a"], deadline_s=0.02)
        gate.open.set()


async def test_a_full_queue_refuses_queries_and_makes_bulk_wait() -> None:
    gate = Gate()
    async with batcher(gate, max_pending=2) as work:
        bulk = asyncio.ensure_future(work.results(["aaaa", "bbbb", "cccc", "dddd"], priority=Priority.BULK))
        await gate.started()
        with pytest.raises(OverloadedError):
            await work.results(["q"])
        gate.open.set()
        assert await bulk == ["AAAA", "BBBB", "CCCC", "DDDD"]
        assert await work.results(["q"]) == ["Q"]


async def test_one_bad_key_fails_alone() -> None:
    def work_on(keys: Sequence[str]) -> list[str]:
        if "bad" in keys:
            raise ArithmeticError("bad")
        return [key.upper() for key in keys]

    async with batcher(work_on, batch_weight=100) as work:
        good, bad, fine = await asyncio.gather(
            *(work.results([key]) for key in ("good", "bad", "fine")), return_exceptions=True
        )
    assert (good, fine) == (["GOOD"], ["FINE"])
    assert isinstance(bad, ArithmeticError)


async def test_closing_lets_the_running_batch_end_and_refuses_the_rest() -> None:
    gate = Gate()
    async with batcher(gate) as work:
        running = asyncio.ensure_future(work.results(["aaaa"], priority=Priority.BULK))
        await gate.started()
        queued = asyncio.ensure_future(work.results(["bbbb"], priority=Priority.BULK))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, gate.open.set)
    result, refused = await settled(running, queued)
    assert result == ["AAAA"]
    assert isinstance(refused, DrainingError)
    with pytest.raises(DrainingError):
        await work.results(["late"])
    assert gate.batches == [["aaaa"]]


async def test_a_thousand_callers_cancelled_at_random_leave_no_trace() -> None:
    import random

    chance = random.Random(7)
    async with batcher(lambda keys: [key.upper() for key in keys], batch_weight=50, max_pending=64) as work:
        calls = [
            asyncio.ensure_future(work.results([f"k{chance.randrange(200)}"], priority=Priority.BULK))
            for _ in range(1_000)
        ]
        for _ in range(500):
            calls[chance.randrange(1_000)].cancel()
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        for result in await settled(*calls):
            assert isinstance(result, asyncio.CancelledError) or (isinstance(result, list) and len(result) == 1)
        # Every place in the queue was given back: as many as the queue holds still fit at once.
        assert await work.results([f"n{number}" for number in range(64)]) == [f"N{number}" for number in range(64)]

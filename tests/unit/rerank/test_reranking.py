"""Which members a re-ranking model moves, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from memory_server.core.candidates import Legs
from memory_server.core.reranking import RERANKED, reranked
from soma_contract.errors import ComponentUnavailableError
from soma_contract.recall import Leg, LegState


class Longest:
    """Prefers long texts."""

    def __init__(self) -> None:
        self.asked = 0

    async def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        self.asked = len(texts)
        return [float(len(text)) for text in texts]


class Silent:
    async def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        await asyncio.Event().wait()
        return []


class Away:
    async def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        raise ComponentUnavailableError(component="rerank")


TEXTS = ["a", "aaa", "aa", "exact"]
ORDER = np.array([3, 0, 2, 1])
EXACT = np.array([False, False, False, True])


async def test_the_model_orders_all_but_the_exact_members() -> None:
    legs = Legs(lambda: 0.0)
    answer = await reranked(Longest(), "q", ORDER, EXACT, TEXTS, legs, deadline_s=1)
    assert answer is not None
    assert [3, 1, 2, 0] == answer.order.tolist()
    assert {0: 1.0, 1: 3.0, 2: 2.0} == answer.raw
    assert LegState.RAN is legs.reports[Leg.RERANK].state


async def test_only_the_best_are_judged_and_the_rest_stays_below() -> None:
    count = RERANKED + 5
    model = Longest()
    order = np.arange(count)
    texts = ["x" * (number + 1) for number in range(count)]
    answer = await reranked(model, "q", order, np.zeros(count, bool), texts, Legs(lambda: 0.0), deadline_s=1)
    assert answer is not None
    assert RERANKED == model.asked
    assert [*range(RERANKED - 1, -1, -1), *range(RERANKED, count)] == answer.order.tolist()


async def test_a_late_model_is_dropped_and_named() -> None:
    legs = Legs(lambda: 0.0)
    assert await reranked(Silent(), "q", ORDER, EXACT, TEXTS, legs, deadline_s=0.02) is None
    assert (LegState.DROPPED, "BUDGET_SPENT:rerank") == (legs.reports[Leg.RERANK].state, legs.reports[Leg.RERANK].cause)


async def test_a_model_that_is_away_is_named_and_the_order_stays() -> None:
    legs = Legs(lambda: 0.0)
    assert await reranked(Away(), "q", ORDER, EXACT, TEXTS, legs, deadline_s=1) is None
    assert LegState.DEGRADED is legs.reports[Leg.RERANK].state

"""A re-ranking model on the best of a recall: within the deadline, or dropped and named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memory_server.core.candidates import Legs
from soma_contract.errors import SomaError
from soma_contract.recall import Leg

RERANKED = 50
"""So many of the best are scored by the model; the rest keeps its order below them."""


class Reranker(Protocol):
    """A model that reads query and text together."""

    async def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        """Return one score a text, higher is better.  Raises a SomaError when the model does not answer."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Reranked:
    """A new order of pool positions, and the model's raw scores by position."""

    order: NDArray[np.int64]
    raw: dict[int, float]


async def reranked(
    reranker: Reranker,
    query: str,
    order: NDArray[np.int64],
    exact: NDArray[np.bool_],
    texts: Sequence[str],
    legs: Legs,
    *,
    deadline_s: float,
) -> Reranked | None:
    """Order the best ``RERANKED`` anew by the model, exact members staying on top; None when it was late or away."""
    started = legs.now()
    pinned = [position for position in order.tolist() if exact[position]]
    free = [position for position in order.tolist() if not exact[position]]
    judged, rest = free[:RERANKED], free[RERANKED:]
    if not judged or not query:
        legs.skipped(Leg.RERANK)
        return None
    try:
        async with asyncio.timeout(deadline_s):
            scores = await reranker.scores(query, [texts[position] for position in judged], deadline_s=deadline_s)
    except TimeoutError:
        legs.failed(Leg.RERANK, started, "BUDGET_SPENT:rerank", late=True)
        return None
    except SomaError as error:
        legs.failed(Leg.RERANK, started, f"{error.reason}:rerank")
        return None
    raw = dict(zip(judged, scores, strict=True))
    # Sorting is stable: where the model sees no difference the ranking's order stays.
    best_first = sorted(judged, key=lambda position: -raw[position])
    legs.ran(Leg.RERANK, started, len(judged))
    return Reranked(np.array([*pinned, *best_first, *rest], np.int64), raw)

"""Making scores of different legs comparable, and adding them up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RRF_K = 60.0


def minmax(scores: NDArray[np.floating], known: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Scale scores to [0, 1] over the pool; a span of zero gives 0 for all.

    With `known` (same shape) only those members count and are scaled; the others get 0.
    """
    values = scores.astype(np.float32)
    present = values if known is None else values[known]
    if present.size == 0:
        return np.zeros_like(values)
    low, high = present.min(), present.max()
    span = high - low
    if not span > 0:
        return np.zeros_like(values)
    scaled: NDArray[np.float32] = np.clip((values - low) / span, 0.0, 1.0)
    return scaled if known is None else np.where(known, scaled, np.float32(0.0))


def weighted(legs: Sequence[tuple[float, NDArray[np.floating]]]) -> NDArray[np.float32]:
    """Return the weighted sum of the legs' scores; raises ValueError without a leg."""
    if not legs:
        raise ValueError("fusion needs at least one leg")
    total = np.zeros(len(legs[0][1]), dtype=np.float32)
    for weight, scores in legs:
        total += np.float32(weight) * scores
    return total


def reciprocal_ranks(
    legs: Sequence[Sequence[str]], k: float = RRF_K, weights: Sequence[float] | None = None
) -> dict[str, float]:
    """Return the reciprocal-rank-fusion score of every id in `legs` (each best first): sum of weight / (k + rank).

    Kept as the yardstick that recall is measured against, not used to answer.  Cormack, Clarke and Büttcher,
    "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods" (2009).
    """
    fused: dict[str, float] = {}
    for position, leg in enumerate(legs):
        weight = 1.0 if weights is None else weights[position]
        for rank, memory_id in enumerate(dict.fromkeys(leg), 1):
            fused[memory_id] = fused.get(memory_id, 0.0) + weight / (k + rank)
    return fused

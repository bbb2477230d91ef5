"""Options a caller turns on: recency, importance, confidence, density, graph and diversity.

Together they move a score by at most a fifth of the best one, so they decide between near-ties and never put a weak
match above a strong one.  Measured on public conversations each of them alone costs recall, which is why all are off
by default.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory_server.domain.presets import Weights
from soma_contract.memory import Kind

BOUND = 0.2
"""Largest total adjustment, as a share of the best fused score in the pool."""
HALF_LIFE_DAYS = {Kind.EPISODIC: 7.0, Kind.SEMANTIC: 90.0, Kind.PROCEDURAL: 90.0}
DENSITY_MARGIN = 0.2


def recency(age_days: NDArray[np.floating], half_life_days: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return 2^(-age / half-life), shape (n,); the future counts as now, an unknown age (NaN) as 0."""
    faded: NDArray[np.float64] = np.exp2(-np.maximum(age_days, 0.0) / half_life_days)
    return np.nan_to_num(faded, nan=0.0).astype(np.float32)


def density(similar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how uncrowded each member's place is, shape (n,): 1 when no other is closer than the margin, 0 for copies.

    `similar` (n, n) holds the members' cosines.
    """
    count = len(similar)
    if count < 2:
        return np.ones(count, dtype=np.float32)
    others = similar.copy()
    np.fill_diagonal(others, -1.0)
    free: NDArray[np.float32] = np.clip((1.0 - others.max(axis=1)) / DENSITY_MARGIN, 0.0, 1.0)
    return free.astype(np.float32)


def adjustment(
    scores: NDArray[np.float32], signals: dict[str, NDArray[np.float32]], weights: Weights
) -> NDArray[np.float32]:
    """Return what the options add to each score, in [0, BOUND x best score], shape (n,).

    `signals` maps option names of `weights` to values in [0, 1], shape (n,); NaN means unknown and adds half, so that
    a memory without importance is neither praised nor blamed.  Diversity is not among them, but its share of the bound
    is left free for `diversified`.
    """
    total = np.zeros(len(scores), dtype=np.float32)
    for name, values in signals.items():
        weight = getattr(weights, name)
        if weight > 0:
            total += np.float32(weight) * np.clip(np.nan_to_num(values, nan=0.5), 0.0, 1.0)
    return (total * np.float32(_scale(scores, weights))).astype(np.float32)


def diversified(scores: NDArray[np.float32], similar: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    """Return scores lowered by likeness to what ranks above, so that ordering by them is greedy MMR.

    Carbonell and Goldstein, "The use of MMR" (1998), with the penalty bounded like every option.  `similar` (n, n)
    holds the members' cosines.  The result is strictly ordered the way members were picked, ties by position.
    """
    penalty = np.float32(weights.diversity * _scale(scores, weights))
    return scores - penalty * _likeness_when_picked(scores, similar, penalty)


def _likeness_when_picked(
    scores: NDArray[np.float32], similar: NDArray[np.float32], penalty: np.float32
) -> NDArray[np.float32]:
    """Return each member's largest cosine to those picked before it, clipped to [0, 1]."""
    count = len(scores)
    likeness = np.zeros(count, dtype=np.float32)
    nearest = np.zeros(count, dtype=np.float32)
    open_ = np.ones(count, dtype=np.bool_)
    for _ in range(count):
        value = np.where(open_, scores - penalty * nearest, -np.inf)
        pick = int(value.argmax())
        likeness[pick] = nearest[pick]
        open_[pick] = False
        np.maximum(nearest, np.clip(similar[pick], 0.0, 1.0), out=nearest)
    return likeness


def _scale(scores: NDArray[np.float32], weights: Weights) -> float:
    """Return what one unit of option weight is worth: weights that add up to more than 1 share the bound."""
    best = float(scores.max(initial=0.0))
    return BOUND * best / max(1.0, weights.options)

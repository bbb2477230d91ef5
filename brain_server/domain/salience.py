"""Salience: how much an item deserves to stay.

One leaky state per item.  It starts at s₀ = 0.6·novelty + 0.3·reward + 0.1·recency with recency = 1, halves every ten
minutes, and each use adds 0.15·(1 − s).  Numbers are the defaults of `WorkingRules`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WorkingRules:
    """How a tenant's working memory behaves; raises ValueError for values outside their range."""

    capacity: int = 128
    """Items a session, 1 to 4,096."""
    novelty_weight: float = 0.6
    reward_weight: float = 0.3
    recency_weight: float = 0.1
    admission: float = 0.4
    """Salience from which on an observation is admitted."""
    always_reward: float = 0.9
    """Reward from which on it is admitted whatever its salience."""
    duplicate_cosine: float = 0.95
    """Above this likeness an item of the same kind is renewed instead."""
    half_life_s: float = 600.0
    boost: float = 0.15
    promotion: float = 0.85
    """Salience that earns promotion when it holds for `promotion_ticks` ticks in a row."""
    promotion_ticks: int = 3
    promotion_namespace: str = "default"
    """Of promoted memories."""
    promotion_kind: str = "episodic"

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= 4_096:
            raise ValueError("capacity must be 1 to 4,096 items")
        for name in ("novelty_weight", "reward_weight", "recency_weight", "admission", "always_reward", "boost"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1]")
        if self.novelty_weight + self.reward_weight + self.recency_weight > 1.0 + 1e-9:
            raise ValueError("the three weights must not add up to more than 1")
        for name in ("duplicate_cosine", "promotion"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in (0, 1]")
        if not 1.0 <= self.half_life_s <= 30 * 86_400.0:
            raise ValueError("half_life_s must be 1 s to 30 days")
        if not 1 <= self.promotion_ticks <= 3_600:
            raise ValueError("promotion_ticks must be 1 to 3,600")


def at_admission(novelty: float, reward: float, rules: WorkingRules) -> float:
    """Return s₀ of something that happens now."""
    return rules.novelty_weight * novelty + rules.reward_weight * reward + rules.recency_weight


def decayed(salience: Floats, since_s: Floats, now_s: float, rules: WorkingRules) -> Floats:
    """Return s·2^(−Δt / half-life) of every item; a clock set back does not make anything rise."""
    faded: Floats = salience * np.exp2(np.minimum(since_s - now_s, 0.0) / rules.half_life_s)
    return faded


def boosted(salience: float, rules: WorkingRules) -> float:
    """Return s + boost·(1 − s): used once more."""
    return salience + rules.boost * (1.0 - salience)

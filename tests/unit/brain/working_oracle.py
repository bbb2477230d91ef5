"""Working memory as slow, plain Python: one item after the other, straight from the rules in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from brain_server.domain.item import Observation, Vector, Verdict
from brain_server.domain.salience import WorkingRules

NEAR = 1e-5
"""Closer than this to a threshold or to each other, single precision may decide either way."""


class TooCloseToCall(Exception):  # noqa: N818 - it is no error, the step is just left out
    """The step depends on rounding."""


@dataclass
class OracleItem:
    item_id: str
    kind: int
    text: str
    reward: float
    vector: Vector
    salience: float
    since_s: float
    ordinal: int
    streak: int = 0
    long_term_id: str = ""
    promoting: bool = False


@dataclass
class OracleSession:
    rules: WorkingRules
    items: list[OracleItem] = field(default_factory=list)
    next_ordinal: int = 1
    next_id: int = 1

    def salience(self, item: OracleItem, now_s: float) -> float:
        return item.salience * math.pow(2.0, -(now_s - item.since_s) / self.rules.half_life_s)

    def observe(self, observation: Observation, now_s: float) -> tuple[Verdict, str, float, float, str]:
        """Return (verdict, item id, salience, novelty, evicted); raise TooCloseToCall before changing anything."""
        vector = stored(observation.vector)
        cosines = [float(np.dot(item.vector, vector)) for item in self.items]
        novelty = 1.0 if not cosines else min(1.0, max(0.0, 1.0 - max(cosines)))
        rules = self.rules
        salience = rules.novelty_weight * novelty + rules.reward_weight * observation.reward + rules.recency_weight
        renewed = next((item for item in self.items if item.item_id == observation.item_id), None)
        if renewed is None:
            alike = [
                (cosine, item)
                for cosine, item in zip(cosines, self.items, strict=True)
                if item.kind == observation.kind and cosine > rules.duplicate_cosine - NEAR
            ]
            if any(cosine < rules.duplicate_cosine + NEAR for cosine, _ in alike):
                raise TooCloseToCall
            alike.sort(key=lambda pair: -pair[0])
            if len(alike) > 1 and alike[0][0] - alike[1][0] < NEAR:
                raise TooCloseToCall
            renewed = alike[0][1] if alike else None
        if renewed is not None:
            salience = max(self.salience(renewed, now_s), salience)
            salience += rules.boost * (1.0 - salience)
            renewed.kind, renewed.text, renewed.vector = observation.kind, observation.text, vector
            renewed.reward = max(renewed.reward, observation.reward)
            renewed.salience, renewed.since_s = salience, now_s
            return Verdict.REFRESHED, renewed.item_id, salience, novelty, ""
        if abs(salience - rules.admission) < NEAR:
            raise TooCloseToCall
        if salience < rules.admission and observation.reward < rules.always_reward:
            return Verdict.IGNORED, "", salience, novelty, ""
        evicted = ""
        if len(self.items) >= rules.capacity:
            ranked = sorted(self.items, key=lambda item: (self.salience(item, now_s), item.ordinal))
            if len(ranked) > 1 and self.salience(ranked[1], now_s) - self.salience(ranked[0], now_s) < NEAR:
                raise TooCloseToCall
            evicted = ranked[0].item_id
            self.items.remove(ranked[0])
        item_id = observation.item_id
        if not item_id:
            item_id, self.next_id = f"i{self.next_id}", self.next_id + 1
        self.items.append(
            OracleItem(
                item_id,
                observation.kind,
                observation.text,
                observation.reward,
                vector,
                salience,
                now_s,
                self.next_ordinal,
            )
        )
        self.next_ordinal += 1
        return Verdict.ADMITTED, item_id, salience, novelty, evicted

    def recall(self, query: Vector, limit: int, now_s: float) -> list[tuple[str, float]]:
        vector = stored(query)
        scored = [(float(np.dot(item.vector, vector)), item) for item in self.items]
        scored.sort(key=lambda pair: (-pair[0], pair[1].ordinal))
        for (one, _), (other, _) in pairwise(scored[: limit + 1]):
            if one - other < NEAR:
                raise TooCloseToCall
        for _, item in scored[:limit]:
            salience = self.salience(item, now_s)
            item.salience, item.since_s = salience + self.rules.boost * (1.0 - salience), now_s
        return [(item.item_id, score) for score, item in scored[:limit]]

    def tick(self, now_s: float) -> list[str]:
        saliences = [self.salience(item, now_s) for item in self.items]
        if any(abs(salience - self.rules.promotion) < NEAR for salience in saliences):
            raise TooCloseToCall
        promoted = []
        for item, salience in zip(self.items, saliences, strict=True):
            item.streak = item.streak + 1 if salience >= self.rules.promotion else 0
            if item.streak >= self.rules.promotion_ticks and not item.promoting and not item.long_term_id:
                item.promoting = True
                promoted.append(item.item_id)
        return promoted


def stored(vector: Vector) -> Vector:
    """The vector as it is kept: of unit length, rounded to half precision."""
    length = float(np.sqrt(np.einsum("i,i->", vector, vector))) or 1.0
    kept: Vector = (vector / np.float32(length)).astype(np.float16).astype(np.float32)
    return kept

"""Ranking hits of several stores together: the memory server's order stands, other hits are placed into it.

The memory server's scores mean nothing outside of its answer, so a hit that it has not scored is placed by likeness,
a number that every hit has: the score that the server's hits of the same likeness got.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SEMANTIC_SHARE = 0.7


def likeness(cosine: float | None, share: float | None) -> float:
    """Return how like a query a memory is, in [-1, 1]: 0.7 of the cosine and 0.3 of the share of terms it holds.

    Only one of the two may be known; negative cosines count as zero when terms are known too.
    """
    if cosine is None:
        return share or 0.0
    if share is None:
        return cosine
    return SEMANTIC_SHARE * max(cosine, 0.0) + (1.0 - SEMANTIC_SHARE) * share


class Scale:
    """What score a likeness is worth in one answer of the memory server.

    The scores of its hits are made monotone in their likeness (isotonic regression by pooling adjacent violators) and
    interpolated; beyond the last hit scores go on in proportion.  Without hits a likeness is its own score.
    """

    def __init__(self, scored: Sequence[tuple[float, float]]) -> None:
        """``scored`` holds (likeness, score) of each hit."""
        pools: list[list[float]] = []
        """Likeness and score sums, and how many hits are in them."""
        for like, score in sorted(scored):
            pools.append([like, score, 1.0])
            while len(pools) > 1 and pools[-2][1] / pools[-2][2] >= pools[-1][1] / pools[-1][2]:
                last = pools.pop()
                pools[-1] = [one + other for one, other in zip(pools[-1], last, strict=True)]
        self._likes = np.array([like / count for like, _, count in pools])
        self._scores = np.array([score / count for _, score, count in pools])

    def score(self, like: float) -> float:
        """Return the score of a hit of this likeness."""
        likes, scores = self._likes, self._scores
        if not len(likes):
            return like
        if like > likes[-1]:
            return float(scores[-1] + (like - likes[-1]))
        if like < likes[0]:
            return float(scores[0] - (likes[0] - like))
        return float(np.interp(like, likes, scores))

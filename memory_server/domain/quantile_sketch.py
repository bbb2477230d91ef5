"""Where a value stands among all values seen: a small, exact-to-merge sketch of a distribution.

Importance means nothing across users (one counts to 5, another to 100), its rank does.  Values fall into buckets
whose width grows with the value (DDSketch, Masson, Rim and Lee 2019), so one addition is O(1), a removal undoes an
addition, merging adds counts, and the rank estimate never decreases with the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

ACCURACY = 0.01
SMALLEST = 1e-9
LARGEST = 1e12
LOG_GAMMA = math.log((1 + ACCURACY) / (1 - ACCURACY))
"""Natural logarithm of how much wider each bucket is than the one before."""


class QuantileSketch:
    """Counts of values by bucket; at most a few thousand buckets whatever comes in."""

    __slots__ = ("_counts", "_total")

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        """Start from the counts of `to_counts`, or empty; raises ValueError for a negative count."""
        self._counts = {int(bucket): int(count) for bucket, count in (counts or {}).items() if count}
        if any(count < 0 for count in self._counts.values()):
            raise ValueError("a sketch has no negative counts")
        self._total = sum(self._counts.values())

    @property
    def total(self) -> int:
        """How many values it holds."""
        return self._total

    def add(self, value: float, count: int = 1) -> None:
        """Count `value` in; raises ValueError when it is not finite."""
        bucket = self._bucket(value)
        self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._total += count

    def remove(self, value: float) -> None:
        """Take one earlier `add` of `value` back; without one, nothing happens."""
        bucket = self._bucket(value)
        count = self._counts.get(bucket, 0)
        if count == 0:
            return
        self._total -= 1
        if count == 1:
            del self._counts[bucket]
        else:
            self._counts[bucket] = count - 1

    def merge(self, other: QuantileSketch) -> None:
        """Count in everything `other` holds."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._total += other._total

    def rank(self, value: float) -> float:
        """Return the share of values below `value`, those in its own bucket counted by half; 0.5 when empty."""
        return self.ranks((value,))[0]

    def ranks(self, values: Iterable[float]) -> list[float]:
        """Return `rank` of each value, at the price of one pass over the buckets."""
        buckets = [self._bucket(value) for value in values]
        if self._total == 0:
            return [0.5] * len(buckets)
        below = 0
        at: dict[int, float] = {}
        wanted = sorted({*buckets, *self._counts})
        for bucket in wanted:
            count = self._counts.get(bucket, 0)
            at[bucket] = (below + count / 2) / self._total
            below += count
        return [at[bucket] for bucket in buckets]

    def to_counts(self) -> dict[int, int]:
        """Return the counts by bucket, ascending, for storing; equal sketches give equal counts."""
        return dict(sorted(self._counts.items()))

    def _bucket(self, value: float) -> int:
        """Return the bucket of `value`: 0 around zero, growing in both directions with the magnitude."""
        if not math.isfinite(value):
            raise ValueError("a sketch counts finite values only")
        size = abs(value)
        if size < SMALLEST:
            return 0
        step = math.ceil(math.log(min(size, LARGEST) / SMALLEST) / LOG_GAMMA) + 1
        return step if value > 0 else -step

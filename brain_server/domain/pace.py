"""How many replayed entries may be in flight, so that catching up does not starve the living."""

from __future__ import annotations

from collections import deque

_SAMPLES = 64
_JUDGED_EVERY = 16


class Pace:
    """At most `most` in flight; halved when the 95th percentile of latency doubles, raised by one step otherwise.

    The latency it compares with is the lowest seen, forgotten by 2 % a judgement, so that a server that has become
    slower for good is not held at a crawl for ever.
    """

    def __init__(self, most: int = 64) -> None:
        self.limit = most
        self._most = most
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._since_judged = 0
        self._usual_s: float | None = None

    def took(self, seconds: float) -> None:
        """Take in how long one stored entry took."""
        self._samples.append(seconds)
        self._since_judged += 1
        if self._since_judged < _JUDGED_EVERY:
            return
        self._since_judged = 0
        p95 = sorted(self._samples)[int(0.95 * (len(self._samples) - 1))]
        if self._usual_s is None:
            self._usual_s = p95
        elif p95 > 2.0 * self._usual_s:
            self.limit = max(1, self.limit // 2)
            self._samples.clear()
        else:
            self.limit = min(self._most, self.limit + max(1, self._most // 16))
        self._usual_s = min(p95, self._usual_s * 1.02)

"""Whether a history of one register could have happened one call after the other.

Every write has a place in the order the server gave (its version or revision), so nothing has to be searched for: a
history is linearizable exactly if each call can be given a moment between its begin and its end such that writes lie in
their order and each read lies between the write it saw and the next one.  Taking the earliest moment possible, in the
order of (place, write before reads, begin), decides that in O(n log n).

Reads that saw nothing name no write: nothing is the state before the first write and after every deletion.  They are
held against the stretches in which the other calls leave room for one of these states.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEVER = math.inf
"""The end of a call whose answer never came: it may have taken effect at any later time."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write that took effect: its place in the server's order, when it began and ended, in seconds."""

    place: int
    began: float
    ended: float
    name: str = ""
    is_deletion: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """A read and the place of the write it saw; None when it saw nothing."""

    place: int | None
    began: float
    ended: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A call that fits nowhere."""

    call: Write | Read
    why: str


def anomalies(writes: Iterable[Write], reads: Iterable[Read]) -> list[Anomaly]:
    """The calls of one register that no order of moments accounts for; empty if the history is linearizable.

    Of calls that contradict each other the one latest in the order is named.  Places are unique.  A read of a place
    that no write has is an anomaly of its own.
    """
    ordered = sorted(writes, key=lambda write: write.place)
    known = {write.place for write in ordered}
    seen = [read for read in reads if read.place is not None]
    found = [Anomaly(read, "it saw what nobody wrote") for read in seen if read.place not in known]
    found += (stale := _stale(ordered, [read for read in seen if read.place in known]))
    # Left in, a read of the past would make every call after it look impossible.
    accused = set(map(id, (anomaly.call for anomaly in stale)))
    placed = [read for read in seen if read.place in known and id(read) not in accused]
    earliest, late = _forward(ordered, placed)
    found += late
    empty = [read for read in reads if read.place is None]
    return found + _nothing_seen(ordered, placed, empty, earliest)


def _stale(writes: Sequence[Write], reads: Sequence[Read]) -> list[Anomaly]:
    """The reads that saw a write although a later one had been answered before they began."""
    places = [write.place for write in writes]
    # The earliest end among the writes from each one on.
    ends = [NEVER]
    for write in reversed(writes):
        ends.append(min(ends[-1], write.ended))
    ends.reverse()
    return [
        Anomaly(read, "it saw what had been overwritten before it began")
        for read in reads
        if read.place is not None and ends[bisect.bisect_right(places, read.place)] < read.began
    ]


def _forward(writes: Sequence[Write], reads: Sequence[Read]) -> tuple[list[float], list[Anomaly]]:
    """The earliest moment of each write, and the calls that even the earliest moment is too late for."""
    calls: list[Write | Read] = sorted(
        [*writes, *reads], key=lambda call: (call.place or 0, isinstance(call, Read), call.began)
    )
    moment, earliest, found = -math.inf, [], []
    for call in calls:
        least = max(moment, call.began)
        if least > call.ended:
            found.append(Anomaly(call, "what came before it began after it had ended"))
        else:
            moment = least
        if isinstance(call, Write):
            earliest.append(moment)
    return earliest, found


def _backward(writes: Sequence[Write], reads: Sequence[Read]) -> list[float]:
    """The latest moment of each write that leaves room for all that comes after it."""
    by_place: dict[int, float] = {}
    for read in reads:
        assert read.place is not None
        by_place[read.place] = min(by_place.get(read.place, NEVER), read.ended)
    latest, moment = [], NEVER
    for write in reversed(writes):
        moment = min(moment, by_place.get(write.place, NEVER), write.ended)
        latest.append(moment)
    return latest[::-1]


def _nothing_seen(
    writes: Sequence[Write], placed: Sequence[Read], empty: Sequence[Read], earliest: Sequence[float]
) -> list[Anomaly]:
    """Reads that saw nothing at a time when there must have been something."""
    latest = _backward(writes, placed)
    # From the earliest moment the state can begin to the latest moment it can end.
    stretches = [(-math.inf, latest[0] if latest else NEVER)]
    stretches += [
        (earliest[place], latest[place + 1] if place + 1 < len(writes) else NEVER)
        for place, write in enumerate(writes)
        if write.is_deletion
    ]
    begins = [begin for begin, _ in stretches]
    ends: list[float] = []
    for _, end in stretches:
        ends.append(max(end, ends[-1] if ends else -math.inf))
    found = []
    for read in empty:
        last = bisect.bisect_right(begins, read.ended) - 1
        if ends[last] < read.began:
            found.append(Anomaly(read, "it saw nothing while there was something"))
    return found

"""Requests that were delivered lately, so that a repeated one is known when its entry is gone.

A caller whose answer was lost repeats its request. Appended anew, it would stand last in line: until it is sent again
(and changes nothing, since the memory server knows it) reads would show it over what was written since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

MOST = 32_768
AGE_S = 600.0
OWN_PREFIX = "brain-"
"""Request ids that the brain made itself begin so; nobody can repeat them."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A request that was delivered."""

    tenant: str
    request_id: str
    digest: bytes
    """As its entry's."""
    at: datetime


@dataclass(slots=True)
class SettledRequests:
    """The requests delivered last, at most ``most`` and none older than ``age_s``."""

    most: int = MOST
    age_s: float = AGE_S
    _kept: OrderedDict[tuple[str, str], Settled] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._kept)

    def load(self, settled: Iterable[Settled]) -> None:
        """Take in what a file held, oldest first."""
        for each in settled:
            self.add(each)

    def add(self, settled: Settled) -> None:
        """Keep one, and let go of those that are too many or too old."""
        place = settled.tenant, settled.request_id
        self._kept.pop(place, None)
        self._kept[place] = settled
        since = settled.at - timedelta(seconds=self.age_s)
        while len(self._kept) > self.most or next(iter(self._kept.values())).at < since:
            self._kept.popitem(last=False)

    def find(self, tenant: str, request_id: str) -> Settled | None:
        """The request, if it is still known."""
        return self._kept.get((tenant, request_id))

    def forget(self, tenant: str) -> None:
        """Let go of a tenant's."""
        for place in [place for place in self._kept if place[0] == tenant]:
            del self._kept[place]

    @property
    def oldest_at(self) -> datetime | None:
        """When the oldest that is kept was delivered."""
        return next((settled.at for settled in self._kept.values()), None)

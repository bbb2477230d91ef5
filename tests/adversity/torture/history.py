"""What agents did and were told, in the order they noted it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from tests.adversity.torture.linearizability import NEVER


class Kind(StrEnum):
    """What a call did."""

    REMEMBER = "remember"
    FORGET = "forget"
    LINK = "link"
    READ = "read"


@dataclass(slots=True)
class Call:
    """One call on one register: a memory of a tenant under its key.

    ``value`` is the text written or read; None is a deletion, or that nothing was there.  ``ended`` is NEVER while no
    answer has come.
    """

    kind: Kind
    tenant: str
    key: str
    value: str | None
    began: float
    request_id: str = ""
    ended: float = NEVER
    memory_id: str = ""
    acknowledged: bool = False
    queued: bool = False


@dataclass(slots=True)
class History:
    """All calls, and what was wrong with an answer in itself."""

    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    """Calls that wait for an answer now."""

    def begin(self, call: Call) -> Call:
        """Note a call before it is sent."""
        self.calls.append(call)
        self.in_flight += 1
        return call

    def acknowledge(self, call: Call, ended: float, *, queued: bool = False) -> None:
        """Note the answer to a write."""
        call.ended, call.acknowledged, call.queued = ended, True, queued
        self.counts["acknowledged"] += 1
        self.counts["queued"] += queued

    def wrong(self, what: str) -> None:
        """Note an answer that is wrong whatever else happened."""
        self.violations.append(what)

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged."""
        return self.counts["acknowledged"]

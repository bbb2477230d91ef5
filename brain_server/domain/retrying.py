"""What to do with an entry that was refused."""

from __future__ import annotations

from enum import Enum
from random import Random

from soma_contract.errors import Code, SomaError

WAITS_FOR_ITS_ENDS = frozenset({"link", "reinforce"})
"""Operations that need memories which another pending entry may be about to create."""

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 30.0
TRIES_OF_ITS_OWN = 10
"""Failures while others succeed, after which an entry counts as unsendable."""
MAX_AGE_S = 7 * 86_400.0
"""Well inside the 30 days the memory server remembers request ids for."""


class Fate(Enum):
    """What a failed attempt means for the entry."""

    AGAIN = "again"
    """The other side is away, busy or not letting this brain in: try for ever, an outage uses up nothing."""
    SUSPECT = "suspect"
    """It may be the entry's own fault: counted while others succeed."""
    DEAD = "dead"
    """It will never be taken."""


_AGAIN = frozenset(
    {
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.CANCELLED,
        # The brain's own credential was refused, which says nothing about the entry.
        Code.UNAUTHENTICATED,
    }
)
_SUSPECT = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.UNIMPLEMENTED})
_AGAIN_REASONS = frozenset(
    {
        # Resumed, suspended tenants want their writes; the age limit ends the wait.
        "TENANT_SUSPENDED",
        "SCOPE_MISSING",
    }
)


def fate_of(error: SomaError) -> Fate:
    """Return what a refusal means for the entry that was sent."""
    if error.code in _AGAIN or error.reason in _AGAIN_REASONS:
        return Fate.AGAIN
    return Fate.SUSPECT if error.code in _SUSPECT else Fate.DEAD


def wait_s(failures: int, rng: Random, at_least_s: float = 0.0) -> float:
    """Return how long to wait after so many failures: full jitter under a ceiling that doubles from 0.1 to 30 s."""
    ceiling = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 32))
    return max(at_least_s, rng.uniform(0.0, ceiling))

"""Links between memories, what changes them and what is asked of them.

All values are frozen.  Times are timezone-aware UTC datetimes with microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from soma_contract.memory import Memory, Target

RELATED = "related"
CO_RECALLED = "co_recalled"
REFERENCES = "references"
USED_IN_PLAN = "used_in_plan"

GROWTH = 0.1
"""What a use adds to a link's strength: s ← s + GROWTH · (1 − s)."""
HALF_LIFE_DAYS = 30.0
"""After so many days without use a co_recalled link counts half."""
FAN_OUT = 32
"""So many co_recalled links a memory keeps, the strongest."""
PLANS_KEPT = 16
"""So many plans a used_in_plan link names, the latest."""
UTILITY_STEP = 0.05
"""How far an outcome moves an option's utility: u ← u + UTILITY_STEP · (outcome − u)."""

_DAY_S = 86_400.0
RESERVED_METADATA = frozenset(
    {
        "tenant",
        "tenant_id",
        "tenantid",
        "source_id",
        "target_id",
        "relation",
        "strength",
        "version",
        "revision",
        "valid_from",
        "valid_from_time",
        "valid_until",
        "valid_until_time",
        "created_at",
        "create_time",
        "updated_at",
        "update_time",
        "origin_at",
        "origin_brain",
        "made_by",
        "request_id",
    }
)
"""Keys that a link's metadata may not hold, in any case: they belong to the system."""


class Direction(StrEnum):
    """Which way links are followed."""

    BOTH = "both"
    OUTGOING = "outgoing"
    INCOMING = "incoming"


class LinkKey(NamedTuple):
    """What a link is known by."""

    source_id: str
    relation: str
    target_id: str


@dataclass(frozen=True, slots=True)
class Link:
    """A directed link; ``strength`` over 0 and at most 1, what is left of it for co_recalled ones."""

    source_id: str
    target_id: str
    relation: str = RELATED
    strength: float = 1.0
    metadata_json: str = ""
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def key(self) -> LinkKey:
        """What it is known by."""
        return LinkKey(self.source_id, self.relation, self.target_id)


# --- what changes links --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Link two memories, replacing a link of the same ends and relation; ``if_match`` 0 is "only if there is none"."""

    source: Target
    target: Target
    relation: str = RELATED
    strength: float = 1.0
    metadata_json: str = ""
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    if_match: int | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Remove a link; ``allow_missing`` makes an absent one a success."""

    source: Target
    target: Target
    relation: str = RELATED
    if_match: int | None = None
    allow_missing: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class UseTogether:
    """Memories were used together: every pair of them is linked co_recalled, or a bit stronger.

    ``plan_id`` links them by used_in_plan with this name as well.
    """

    memory_ids: tuple[str, ...]
    plan_id: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Refer:
    """A memory's payload names these others: link it to those that exist, unlink what it named before."""

    memory_id: str
    targets: tuple[Target, ...]
    request_id: str = ""


LinkCommand = MakeLink | RemoveLink | UseTogether | Refer


@dataclass(frozen=True, slots=True)
class LinkWritten:
    """What a committed command did; ``link`` is set after a MakeLink, ``unknown`` counts ids that name no memory."""

    link: Link | None
    revision: int
    created: bool = False
    changed: bool = True
    unknown: int = 0
    repeated: bool = False
    """Whether the request had been answered before; this is the first answer again."""


@dataclass(frozen=True, slots=True)
class OptionOutcome:
    """How an option (a PROCEDURAL memory) turned out, from -1 to 1."""

    memory_id: str
    outcome: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """One frame of what was learnt; applied once for its (request id, sequence)."""

    request_id: str
    sequence: int
    learnt: UseTogether | OptionOutcome

    @property
    def frame_id(self) -> str:
        """What the frame is remembered by; holds a character that no request id from outside can clash with."""
        return f"{self.request_id}\x1f{self.sequence}"


@dataclass(frozen=True, slots=True)
class Reinforced:
    """What came of frames."""

    applied: int = 0
    repeated: int = 0
    unknown: int = 0
    revision: int = 0

    def plus(self, other: Reinforced) -> Reinforced:
        """Both together."""
        return Reinforced(
            self.applied + other.applied,
            self.repeated + other.repeated,
            self.unknown + other.unknown,
            max(self.revision, other.revision),
        )


# --- what is asked -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reach:
    """Which links are followed: their direction, relations (empty is all) and least strength."""

    direction: Direction = Direction.BOTH
    relations: tuple[str, ...] = ()
    min_strength: float = 0.0


@dataclass(frozen=True, slots=True)
class NeighborQuery:
    """Where to look around."""

    target: Target
    hops: int = 1
    reach: Reach = Reach()
    limit: int = 100
    include_memories: bool = False


@dataclass(frozen=True, slots=True)
class PathQuery:
    """Between which memories to find paths."""

    source: Target
    target: Target
    max_length: int = 6
    max_paths: int = 1
    reach: Reach = Reach()


@dataclass(frozen=True, slots=True)
class SubgraphQuery:
    """What to draw."""

    targets: tuple[Target, ...]
    radius: int = 0
    max_nodes: int = 100
    reach: Reach = Reach()


@dataclass(frozen=True, slots=True)
class RankQuery:
    """Where to start ranking."""

    targets: tuple[Target, ...]
    radius: int = 2
    damping: float = 0.85
    limit: int = 50
    reach: Reach = Reach()


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """How a graph call ended; ``spent`` names the budget that ran out: time, frontier or nodes."""

    visited: int = 0
    spent: str = ""

    @property
    def partial(self) -> bool:
        """Whether there may be more, or better."""
        return bool(self.spent)


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A memory nearby: links away, product of strengths on the best way of that many, the link that led here."""

    memory_id: str
    depth: int
    strength: float
    via: Link
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class MemoryPath:
    """A path: memories from source to target, the links between them (one fewer), the sum of their costs."""

    memory_ids: tuple[str, ...]
    links: tuple[Link, ...]
    cost: float


@dataclass(frozen=True, slots=True)
class RankedMemory:
    """A memory and its PageRank."""

    memory_id: str
    score: float


def grown(strength: float) -> float:
    """A link's strength after one more use; 0 is a link that is not there yet."""
    return strength + GROWTH * (1.0 - strength)


def decayed(relation: str, strength: float, updated_at: datetime | None, now: datetime) -> float:
    """What is left of a strength: co_recalled fades by half in 30 days without use, the rest stays."""
    if relation != CO_RECALLED or updated_at is None:
        return strength
    days = max(0.0, (now - updated_at).total_seconds()) / _DAY_S
    return float(strength * 2.0 ** -min(days / HALF_LIFE_DAYS, 1000.0))


def place_of(link: Link, memory_id: str) -> tuple[float, str, str, bool]:
    """Where a link stands in the list of a memory's links: strongest first, then by other end, relation, direction."""
    outgoing = link.source_id == memory_id
    return -link.strength, link.target_id if outgoing else link.source_id, link.relation, not outgoing

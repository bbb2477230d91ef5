"""A recall: the query, the hits and the summary, as both servers and the client see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from soma_contract.filters import EVERYTHING, Filter
from soma_contract.limits import LIMITS
from soma_contract.memory import Memory, Target, Vector, View


class Leg(StrEnum):
    """A way candidates are found or scored."""

    EXACT = "exact"
    DENSE = "dense"
    KEYWORD = "keyword"
    OVERLAY = "overlay"
    LATE_INTERACTION = "late_interaction"
    GRAPH = "graph"
    WORKING = "working"
    PENDING = "pending"
    RERANK = "rerank"


class LegState(StrEnum):
    """What became of a leg."""

    RAN = "ran"
    DROPPED = "dropped"
    DEGRADED = "degraded"
    SKIPPED = "skipped"


class Preset(StrEnum):
    """A named set of ranking weights."""

    BALANCED = "balanced"
    FAST = "fast"
    PRECISE = "precise"
    RECENT = "recent"
    EXPLORATORY = "exploratory"


class Source(StrEnum):
    """Where a hit came from."""

    WORKING = "working"
    LONG_TERM = "long_term"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Changes to a preset's options; None keeps the preset's value."""

    recency: float | None = None
    importance: float | None = None
    graph: float | None = None
    diversity: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """What to find; exactly one of text, embedding and like says what it should be like.

    ``text_embedding`` saves embedding the text.  ``recheck_ids`` are looked up only.
    """

    text: str = ""
    embedding: Vector | None = None
    like: Target | None = None
    filter: Filter = EVERYTHING
    limit: int = LIMITS.recall_limit_default
    min_score: float | None = None
    min_relevance: float | None = None
    preset: Preset = Preset.BALANCED
    ranking: Ranking = Ranking()
    legs: frozenset[Leg] = frozenset()
    token_budget: int = 0
    explain: bool = False
    allow_degraded: bool = True
    graph_hops: int = 1
    view: View = View.BASIC
    text_embedding: Vector | None = None
    recheck_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signals:
    """What made up a score; None was not computed."""

    dense: float | None = None
    keyword: float | None = None
    late_interaction: float | None = None
    actor: float | None = None
    date: float | None = None
    neighbour: float | None = None
    session: float | None = None
    graph: float | None = None
    recency: float | None = None
    importance: float | None = None
    working: float | None = None
    exact: float | None = None
    rerank: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class LegExplanation:
    """How one leg saw a hit; rank counts from 1, 0 means the leg did not propose it."""

    leg: Leg
    rank: int
    score: float
    normalised: float
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a hit stands where it stands."""

    legs: tuple[LegExplanation, ...] = ()
    adjustments: dict[str, float] = field(default_factory=dict)
    matched_text: str = ""
    matched_terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One memory found; the score is comparable only within its answer."""

    memory: Memory
    score: float
    signals: Signals = Signals()
    source: Source = Source.LONG_TERM
    path: tuple[str, ...] = ()
    explanation: Explanation | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class LegReport:
    """One leg of a recall."""

    leg: Leg
    state: LegState
    duration_s: float = 0.0
    cause: str = ""
    candidates: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a recall searched; "nothing found" is a summary without degraded legs."""

    legs: tuple[LegReport, ...]
    pending_rows: int = 0
    considered: int = 0
    revision: int = 0
    gone_ids: tuple[str, ...] = ()
    tokens: int = 0
    duration_s: float = 0.0

    @property
    def degraded(self) -> bool:
        """Whether there may be more to find."""
        return any(leg.state in (LegState.DROPPED, LegState.DEGRADED) for leg in self.legs)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A whole answer: hits, best first, and the summary."""

    hits: tuple[Hit, ...]
    summary: Summary

"""The weights of the ranking, and the named sets of them a caller can ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

MMR_DIVERSITY = 0.5
OPTIONS = frozenset({"recency", "importance", "confidence", "density", "graph", "diversity"})
"""The weights of bounded options, off unless asked for."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal counts; relevance first, then the bounded options (0 = off).

    Chosen on the choosing halves of three public conversation sets together, never on one of them.
    """

    keyword: float = 0.15
    """Share of the keyword leg; the dense side gets the rest."""
    sentence: float = 0.15
    """Within the dense side's cosine: share of the best sentence."""
    late_interaction: float = 0.6
    """Share of MaxSim in the dense side; 0 switches it off and saves its time."""
    reach: float = 0.7
    """Within MaxSim: share of the value to which the neighbouring turns' tokens contribute."""
    previous: float = 0.10
    """Share of the previous turn's score."""
    following: float = 0.15
    """Share of the next turn's score."""
    answer: float = 0.2
    """Share of the previous turn's score when that turn asks and this one is short."""
    session: float = 0.3
    """Share of the mean of the session's three best."""
    actor: float = 0.35
    """Bonus when the memory's actor is the one the query names."""
    date: float = 0.4
    """Bonus when the memory's date is the one the query names."""
    question: float = 0.05
    """Taken off a turn that asks instead of telling."""
    first_person: float = 0.07
    """Bonus for a turn that speaks of its speaker."""
    time: float = 0.06
    """Bonus for a turn that tells a time, when the query asks for one."""
    recency: float = 0.0
    importance: float = 0.0
    confidence: float = 0.0
    density: float = 0.0
    graph: float = 0.0
    diversity: float = 0.0
    scorer: str = ""
    """The strategy that puts these weights to use; empty for the built-in one."""

    @property
    def conversation(self) -> bool:
        """Whether a member's place in its session counts."""
        return max(self.previous, self.following, self.answer, self.session) > 0

    @property
    def details(self) -> bool:
        """Whether vectors of sentences or tokens count."""
        return self.sentence > 0 or self.late_interaction > 0

    @property
    def form(self) -> bool:
        """Whether the form of a text counts: who asks, who speaks of himself, who tells a time."""
        return max(self.answer, self.question, self.first_person, self.time) > 0

    @property
    def options(self) -> float:
        """Sum of the bounded options' weights."""
        return self.recency + self.importance + self.confidence + self.density + self.graph + self.diversity


BALANCED = Weights()
FAST = Weights(
    keyword=0.4,
    sentence=0.0,
    late_interaction=0.0,
    reach=0.0,
    previous=0.0,
    following=0.0,
    answer=0.0,
    session=0.0,
    question=0.0,
    first_person=0.0,
    time=0.0,
)
"""Both legs fused, actor and date: what needs nothing but the candidates themselves and their dense vectors."""
PRECISE = Weights(keyword=0.5)
RECENT = Weights(recency=1.0)
EXPLORATORY = Weights(graph=0.5, diversity=MMR_DIVERSITY)

PRESETS: Mapping[str, Weights] = MappingProxyType(
    {"balanced": BALANCED, "fast": FAST, "precise": PRECISE, "recent": RECENT, "exploratory": EXPLORATORY}
)


def preset(
    name: str = "balanced",
    *,
    recency: float | None = None,
    importance: float | None = None,
    graph: float | None = None,
    diversity: float | None = None,
) -> Weights:
    """Return the preset `name` with the options a request sets itself, each in [0, 1].

    Raises KeyError for an unknown name and ValueError for an option out of range.
    """
    asked = {"recency": recency, "importance": importance, "graph": graph, "diversity": diversity}
    given: dict[str, Any] = {option: value for option, value in asked.items() if value is not None}
    for option, value in given.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"ranking option {option} must be in [0, 1], not {value}")
    return replace(PRESETS[name], **given)

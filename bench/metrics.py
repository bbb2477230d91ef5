"""How good a ranking is, given the turns that answer the question (gold), averaged over questions.

    R@k      share of the gold turns among the first k
    hit@10   1 if any gold turn is among the first 10
    all@10   1 if every gold turn is among the first 10
    MRR      1 / place of the first gold turn
    nDCG@10  sum of 1 / log2(place + 1) over gold turns among the first 10, over the most that could be had

A turn that is ranked twice counts once, at its first place; a question without a ranking counts zero everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from bench.dialogues import UNANSWERABLE, Question

DEPTHS = (1, 5, 10, 20)
CUT = 10
NAMES = (*(f"R@{depth}" for depth in DEPTHS), "hit@10", "all@10", "MRR", "nDCG@10")
TOTAL = "total"


def score(ranked: Sequence[str], gold: frozenset[str]) -> tuple[float, ...]:
    """The metrics of one question, in the order of NAMES."""
    places = [place for place, turn in enumerate(dict.fromkeys(ranked), start=1) if turn in gold]
    early = [place for place in places if place <= CUT]
    best = sum(1.0 / math.log2(place + 1) for place in range(1, min(len(gold), CUT) + 1))
    gained = sum(1.0 / math.log2(place + 1) for place in early)
    return (
        *(sum(place <= depth for place in places) / len(gold) for depth in DEPTHS),
        float(bool(early)),
        float(len(early) == len(gold)),
        1.0 / places[0] if places else 0.0,
        gained / best,
    )


def averages(questions: Iterable[Question], rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Total and categories to their mean metrics and ``n``; unanswerable questions are a category but no part of it."""
    groups: dict[str, list[tuple[float, ...]]] = {TOTAL: []}
    for question in questions:
        scores = score(rankings.get(question.question_id, ()), question.gold)
        groups.setdefault(question.category, []).append(scores)
        if question.category != UNANSWERABLE:
            groups[TOTAL].append(scores)
    return {
        name: {
            "n": len(rows),
            **{metric: sum(row[column] for row in rows) / len(rows) for column, metric in enumerate(NAMES)},
        }
        for name, rows in groups.items()
        if rows
    }

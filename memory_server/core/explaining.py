"""Signals and explanations of a hit."""

from __future__ import annotations

import numpy as np

from memory_server.core.candidates import Candidates
from memory_server.core.questions import Question
from memory_server.domain.late_interaction import INT8_SCALE
from memory_server.domain.presets import Weights
from memory_server.domain.scoring import Ranking
from memory_server.ports import PoolRow
from soma_contract.recall import Explanation, Leg, LegExplanation, Signals
from soma_contract.text.analysis import analyzer
from soma_contract.text.sentences import split_sentences

_NORMALISED = {Leg.DENSE: "dense", Leg.KEYWORD: "keyword", Leg.LATE_INTERACTION: "late_interaction"}
_ADJUSTMENTS = (
    "neighbour",
    "session",
    "actor",
    "date",
    "question",
    "first_person",
    "time",
    "recency",
    "importance",
    "confidence",
    "graph",
)


def signals_of(ranking: Ranking, position: int) -> Signals:
    """The signals of one pool member; those of the legs are raw: cosine, BM25, mean of the best token cosines."""

    def value(name: str) -> float | None:
        column = ranking.raw.get(name)
        if column is None:
            column = ranking.signals.get(name)
        return None if column is None or np.isnan(column[position]) else float(column[position])

    return Signals(
        dense=float(ranking.cosines[position]),
        keyword=value("keyword"),
        late_interaction=value("late_interaction"),
        actor=value("actor"),
        date=value("date"),
        neighbour=value("neighbour"),
        session=value("session"),
        graph=value("graph"),
        recency=value("recency"),
        importance=value("importance"),
        confidence=value("confidence"),
        exact=value("exact") or None,
        rerank=value("rerank"),
    )


def explained(
    ranking: Ranking, position: int, row: PoolRow, question: Question, found: Candidates, weights: Weights
) -> Explanation:
    """Why a pool member stands where it stands: its rank and score in each leg, what was added, what matched."""
    memory_id = row.memory.memory_id
    shares = {
        Leg.KEYWORD: weights.keyword,
        Leg.DENSE: (1 - weights.keyword) * (1 - weights.late_interaction),
        Leg.LATE_INTERACTION: (1 - weights.keyword) * weights.late_interaction,
    }
    legs = []
    for leg, name in _NORMALISED.items():
        column = ranking.signals.get(name)
        if column is None:
            continue
        normalised = float(column[position])
        raw = float((ranking.cosines if leg is Leg.DENSE else ranking.raw.get(name, column))[position])
        rank = found.ranks.get(leg, {}).get(memory_id, 0)
        legs.append(LegExplanation(leg, rank, raw, normalised, shares[leg]))
    if memory_id in found.ranks.get(Leg.OVERLAY, {}):
        legs.append(LegExplanation(Leg.OVERLAY, found.ranks[Leg.OVERLAY][memory_id], 0.0, 0.0, 0.0))
    factors = {
        "actor": weights.actor,
        "date": weights.date,
        "question": -weights.question,
        "session": weights.session,
        "first_person": weights.first_person,
        "time": weights.time,
    }
    adjustments = {
        name: float(ranking.signals[name][position]) * factors.get(name, 1.0)
        for name in _ADJUSTMENTS
        if name in ranking.signals and not np.isnan(ranking.signals[name][position])
    }
    matched = [term for term, count in zip(question.terms, row.term_counts.tolist(), strict=True) if count]
    return Explanation(tuple(legs), adjustments, _best_sentence(row, question), tuple(matched))


def _best_sentence(row: PoolRow, question: Question) -> str:
    """The sentence that holds most of the query's terms, the nearest one where vectors tell; the first of equals."""
    sentences = split_sentences(row.memory.text)
    if not sentences:
        return row.memory.text[:200]
    vectors, query = row.vectors, question.features.vector
    if vectors is not None and query is not None and 1 < len(sentences) == len(vectors.sentences):
        return sentences[int(np.argmax(vectors.sentences.astype(np.float32) @ (query / np.float32(INT8_SCALE))))]
    wanted = set(question.terms)
    return max(sentences, key=lambda sentence: len(wanted & set(analyzer().terms(sentence))))

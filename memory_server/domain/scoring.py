"""The ranking of a pool: legs on one scale, fused, shared within conversations, adjusted, ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memory_server.domain.adjustments import adjustment, density, diversified
from memory_server.domain.context_shares import at_positions, brevity, neighbour_positions, session_scores
from memory_server.domain.fusion import minmax, weighted
from memory_server.domain.late_interaction import ABSENT, best_rows, reaching, weighted_mean
from memory_server.domain.pool import Pool, QueryFeatures
from memory_server.domain.presets import Weights

Signal = NDArray[np.float32]

SCORE_DECIMALS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The pool in order.

    `order` int64 (n,) holds positions in the pool, best first, ties by id; `scores` (n,) and `cosines` (n,) are in
    pool order, cosines 0 where there is no vector; `signals` names what made up the scores, (n,) each, in pool order.
    `raw` holds those that were scaled over the pool as they were before: BM25, and the mean of the best token cosines.
    """

    order: NDArray[np.int64]
    scores: Signal
    cosines: Signal
    signals: Mapping[str, Signal]
    raw: Mapping[str, Signal] = field(default_factory=dict)


class Scorer(Protocol):
    """A strategy of ranking; a tenant may name its own."""

    def rank(self, pool: Pool, query: QueryFeatures, weights: Weights) -> Ranking:
        """Order the pool; must be deterministic and must keep exact members on top."""
        ...


class RelevanceScorer:
    """The default strategy: the measured pipeline of dense, keyword and late interaction scores."""

    def rank(self, pool: Pool, query: QueryFeatures, weights: Weights) -> Ranking:
        """Order the pool as `rank` does."""
        return rank(pool, query, weights)


def rank(pool: Pool, query: QueryFeatures, weights: Weights) -> Ranking:
    """Order the pool by relevance, then by the options within their bound, exact members first, ties by id.

    A member without a vector is judged by keywords alone, one without token vectors by its dense score, so that a
    late embedding is no verdict.
    """
    by_id = np.array(sorted(range(len(pool)), key=pool.ids.__getitem__), dtype=np.int64)
    absent = np.full(len(pool), ABSENT, np.int64)
    previous, following = absent, absent
    if weights.conversation or weights.late_interaction * weights.reach > 0:
        previous, following = neighbour_positions(pool.sessions, pool.sequences, by_id)
    cosines, dense = _dense(pool, query, weights)
    matched = _late(pool, query, weights, previous, following)
    late = None if matched is None else minmax(matched, pool.embedded)
    keyword = minmax(pool.keyword)
    meaning = dense
    if late is not None:
        share = weights.late_interaction
        meaning = weighted([(1 - share, dense), (share, late)])
    if query.vector is None:
        fused = keyword
    else:
        share = weights.keyword
        fused = np.where(pool.embedded, weighted([(share, keyword), (1 - share, meaning)]), keyword)

    signals: dict[str, Signal] = {
        "dense": dense,
        "keyword": keyword,
        "actor": pool.actor_match,
        "exact": pool.exact.astype(np.float32),
    }
    if weights.conversation:
        signals["neighbour"] = weighted(
            [
                (weights.previous, at_positions(fused, previous)),
                (weights.following, at_positions(fused, following)),
                (weights.answer, _brevity(pool) * at_positions(fused * pool.is_question, previous)),
            ]
        )
        signals["session"] = session_scores(fused, pool.sessions)
    if weights.question > 0:
        signals["question"] = pool.is_question.astype(np.float32)
    if late is not None:
        signals["late_interaction"] = late
    for name, values in (
        ("date", pool.date_match),
        ("first_person", pool.first_person),
        ("time", pool.tells_time),
    ):
        if values is not None:
            signals[name] = values.astype(np.float32)
    shares = {
        "neighbour": 1.0,
        "session": weights.session,
        "actor": weights.actor,
        "date": weights.date,
        "question": -weights.question,
        "first_person": weights.first_person,
        "time": weights.time,
    }
    scores = weighted([(1.0, fused), *((share, signals[name]) for name, share in shares.items() if name in signals)])
    scores = _adjusted(scores, pool, weights, signals, by_id)
    # Matrix products differ in the last bit by a row's place: rounding makes equal memories equal again.
    scores = np.round(_pinned(scores, pool.exact), SCORE_DECIMALS)
    order = by_id[np.argsort(-scores[by_id], kind="stable")]
    raw = {"keyword": pool.keyword} if matched is None else {"keyword": pool.keyword, "late_interaction": matched}
    return Ranking(order, scores, cosines, signals, raw)


def _dense(pool: Pool, query: QueryFeatures, weights: Weights) -> tuple[Signal, Signal]:
    """Return the plain cosines, and cosines with the best sentence's share on the scale of the pool."""
    if query.vector is None:
        nothing = np.zeros(len(pool), dtype=np.float32)
        return nothing, nothing
    cosines = pool.vectors @ query.vector
    mixed = cosines
    if weights.sentence > 0 and len(pool.sentences.matrix):
        sentence = best_rows(pool.sentences, query.vector[None, :])[:, 0]
        share = np.float32(weights.sentence)
        mixed = np.where(pool.sentences.present, (1 - share) * cosines + share * sentence, cosines)
    return cosines, minmax(mixed, pool.embedded)


def _late(
    pool: Pool, query: QueryFeatures, weights: Weights, previous: NDArray[np.int64], following: NDArray[np.int64]
) -> Signal | None:
    """Return MaxSim, or None when it is off or nothing has tokens."""
    present = pool.tokens.present
    if weights.late_interaction <= 0 or len(query.tokens) == 0 or not present.any():
        return None
    best = best_rows(pool.tokens, query.tokens)
    # A turn without any content word ("You too!") matches as badly as the worst, unless its neighbours match.
    best[~present] = best[present].min(axis=0)
    # Rarity counts, but damped: a chat's rare word is often a slip, and half of a question's words are common.
    token_weights = None if query.token_weights is None else np.sqrt(np.maximum(query.token_weights, np.float32(0.0)))
    own = weighted_mean(best, token_weights)
    if weights.reach > 0:
        wider = weighted_mean(reaching(best, previous, following), token_weights)
        own = weighted([(1 - weights.reach, own), (weights.reach, wider)])
    return own


def _brevity(pool: Pool) -> Signal:
    """Return how short each member is, (n,); 0 where that is unknown for want of tokens."""
    if not pool.tokens.present.any():
        return np.zeros(len(pool), dtype=np.float32)
    return np.where(pool.embedded, brevity(np.diff(pool.tokens.bounds)), np.float32(0.0))


def _adjusted(
    scores: Signal, pool: Pool, weights: Weights, signals: dict[str, Signal], by_id: NDArray[np.int64]
) -> Signal:
    """Return scores after the options that are on, and note their signals."""
    if weights.options <= 0 or len(pool) == 0:
        return scores
    options = dict(pool.options)
    similar = pool.vectors @ pool.vectors.T if weights.density > 0 or weights.diversity > 0 else None
    if similar is not None and weights.density > 0:
        options["density"] = density(similar)
    signals.update({name: values for name, values in options.items() if getattr(weights, name) > 0})
    adjusted = scores + adjustment(scores, options, weights)
    if similar is not None and weights.diversity > 0:
        # In id order, so that of two equals the same one is picked first whatever order the pool came in.
        picked = np.round(adjusted[by_id], SCORE_DECIMALS)
        adjusted[by_id] = diversified(picked, similar[np.ix_(by_id, by_id)], weights)
    return adjusted


def _pinned(scores: Signal, exact: NDArray[np.bool_]) -> Signal:
    """Return scores with exact members lifted above all others, their order among each other kept."""
    if not exact.any():
        return scores
    lift = scores.max() - scores.min() + np.float32(1.0)
    return np.where(exact, scores + lift, scores)

"""From rows of the truth to the arrays that ranking works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memory_server.core.questions import Question
from memory_server.domain.adjustments import HALF_LIFE_DAYS, recency
from memory_server.domain.bm25 import bm25, idf
from memory_server.domain.late_interaction import Rows
from memory_server.domain.pool import Pool, QueryFeatures
from memory_server.domain.presets import Weights
from memory_server.ports import PoolRow, TermStats
from soma_contract.text.actors import actor_match
from soma_contract.text.dates import date_match
from soma_contract.text.questions import Form, asks_when, form_of

_TOKEN_WIDTH = 64
# The form of a text is asked for at each recall that the text is a candidate of, and costs as much as all scores of it.
_form_of = lru_cache(maxsize=8_192)(form_of)
_NO_FORM = Form(asks=False, first_person=False, tells_time=False)
_NO_TOKENS = np.zeros((0, _TOKEN_WIDTH), np.int8)


def pooled(
    rows: Sequence[PoolRow],
    stats: TermStats,
    question: Question,
    weights: Weights,
    *,
    dimension: int,
    now: datetime,
    exact: NDArray[np.bool_],
) -> Pool:
    """Return the pool of these rows, every array in their order."""
    count = len(rows)
    vectors = np.zeros((count, dimension), np.float32)
    embedded = np.zeros(count, np.bool_)
    for position, row in enumerate(rows):
        if row.vectors is not None:
            vectors[position] = row.vectors.dense
            embedded[position] = True
    no_sentences = np.zeros((0, dimension), np.int8)
    memories = [row.memory for row in rows]
    forms = [_form_of(memory.text) for memory in memories] if weights.form else [_NO_FORM] * count
    codes: dict[tuple[str, str], int] = {}
    sessions = np.array(
        [
            codes.setdefault((memory.namespace, memory.session_id), len(codes)) if memory.session_id else -1
            for memory in memories
        ],
        np.int64,
    )
    return Pool(
        ids=tuple(memory.memory_id for memory in memories),
        vectors=vectors,
        embedded=embedded,
        sentences=Rows.of(
            [row.vectors.sentences if row.vectors and weights.sentence > 0 else no_sentences for row in rows], dimension
        ),
        tokens=Rows.of(
            [row.vectors.tokens if row.vectors and weights.late_interaction > 0 else _NO_TOKENS for row in rows],
            _TOKEN_WIDTH,
        ),
        keyword=keyword_scores(rows, stats, question),
        actor_match=actor_match([memory.actor for memory in memories], question.mention),
        date_match=(
            date_match(question.date, np.array([_naive(memory.occurred_at) for memory in memories], "M8[us]"))
            if question.date is not None
            else None
        ),
        is_question=np.array([form.asks for form in forms], np.bool_),
        sessions=sessions,
        sequences=np.array([memory.sequence if memory.sequence is not None else -2 for memory in memories], np.int64),
        exact=exact,
        first_person=np.array([form.first_person for form in forms], np.bool_),
        tells_time=np.array([form.tells_time for form in forms], np.bool_) if asks_when(question.text) else None,
        options=_options(rows, weights, now),
    )


def keyword_scores(rows: Sequence[PoolRow], stats: TermStats, question: Question) -> NDArray[np.float32]:
    """BM25 of each row, from its stored terms, shape (n,)."""
    if not rows or not question.terms:
        return np.zeros(len(rows), np.float32)
    counts = np.stack([row.term_counts for row in rows])
    lengths = np.fromiter((row.length for row in rows), np.int64, len(rows))
    return bm25(counts, lengths, idf(stats.rows, stats.frequencies) * question.term_weights, stats.mean_length)


def with_token_weights(question: Question, rows: Sequence[PoolRow]) -> QueryFeatures:
    """Weigh the query's tokens by how rare they are in the pool."""
    features = question.features
    if not len(features.tokens) or len(question.token_ids) != len(features.tokens):
        return features
    held = [row.vectors.token_ids for row in rows if row.vectors is not None and len(row.vectors.token_ids)]
    if not held:
        return features
    starts = np.cumsum([0, *(len(ids) for ids in held[:-1])])
    holds = np.maximum.reduceat(np.concatenate(held)[None, :] == question.token_ids[:, None], starts, axis=1)
    weights = idf(len(held), holds.sum(axis=1, dtype=np.int64))
    return replace(features, token_weights=weights.astype(np.float32))


def _options(rows: Sequence[PoolRow], weights: Weights, now: datetime) -> dict[str, NDArray[np.float32]]:
    options: dict[str, NDArray[np.float32]] = {}
    if weights.recency > 0:
        ages = np.array(
            [
                max(0.0, (now - (row.memory.occurred_at or row.memory.created_at or now)).total_seconds()) / 86_400
                for row in rows
            ]
        )
        half_lives = np.array([HALF_LIFE_DAYS[row.memory.kind] for row in rows])
        options["recency"] = recency(ages, half_lives)
    if weights.confidence > 0:
        options["confidence"] = np.array(
            [np.nan if row.memory.provenance.confidence is None else row.memory.provenance.confidence for row in rows],
            np.float32,
        )
    if weights.importance > 0:
        options["importance"] = np.array(
            [np.nan if row.importance_rank is None else row.importance_rank for row in rows], np.float32
        )
    return options


def _naive(at: datetime | None) -> datetime | None:
    """numpy's datetimes carry no zone; ours are all UTC."""
    return None if at is None else at.replace(tzinfo=None)

"""The ranking of a whole pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memory_server.core.explaining import signals_of
from memory_server.domain.fusion import minmax
from memory_server.domain.late_interaction import Rows
from memory_server.domain.pool import Pool, QueryFeatures
from memory_server.domain.presets import BALANCED, EXPLORATORY, PRESETS, Weights
from memory_server.domain.scoring import RelevanceScorer, Scorer, rank

_D, _T = 4, 3
_UNIT = st.floats(0, 1, width=32)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.where(norms > 1e-3, rows / np.maximum(norms, 1e-3), np.eye(1, rows.shape[-1])).astype(np.float32)


@st.composite
def _pools(draw: st.DrawFn, max_size: int = 10) -> Pool:
    count = draw(st.integers(0, max_size))
    ids = draw(st.lists(st.uuids().map(str), min_size=count, max_size=count, unique=True))
    embedded = draw(arrays(np.bool_, count))
    vectors = _unit(draw(arrays(np.float32, (count, _D), elements=st.floats(-1, 1, width=32))))
    values = arrays(np.float32, count, elements=_UNIT)

    def rows(width: int) -> Rows:
        sizes = [draw(st.integers(0, 3)) if has else 0 for has in embedded]
        return Rows.of([draw(arrays(np.int8, (n, width), elements=st.integers(-127, 127))) for n in sizes], width)

    return Pool(
        ids=tuple(ids),
        vectors=np.where(embedded[:, None], vectors, np.float32(0)),
        embedded=embedded,
        sentences=rows(_D),
        tokens=rows(_T),
        keyword=draw(arrays(np.float32, count, elements=st.floats(0, 20, width=32))),
        actor_match=draw(arrays(np.float32, count, elements=st.sampled_from([0.0, 0.5, 1.0]))),
        date_match=draw(st.none() | values),
        is_question=draw(arrays(np.bool_, count)),
        sessions=draw(arrays(np.int64, count, elements=st.integers(-1, 2))),
        sequences=draw(arrays(np.int64, count, elements=st.integers(0, 5))),
        exact=draw(arrays(np.bool_, count, elements=st.sampled_from([False, False, True]))),
        first_person=draw(st.none() | arrays(np.bool_, count)),
        tells_time=draw(st.none() | arrays(np.bool_, count)),
        options={name: draw(values) for name in ("recency", "importance", "confidence", "graph")},
    )


@st.composite
def _queries(draw: st.DrawFn) -> QueryFeatures:
    vector = draw(st.none() | arrays(np.float32, (1, _D), elements=st.floats(-1, 1, width=32)))
    tokens = draw(st.integers(0, 3).flatmap(lambda n: arrays(np.float32, (n, _T), elements=_UNIT)))
    return QueryFeatures(None if vector is None else _unit(vector)[0], tokens)


_WEIGHTS = st.sampled_from(list(PRESETS.values())) | st.builds(
    Weights, recency=_UNIT, importance=_UNIT, density=_UNIT, graph=_UNIT, diversity=_UNIT
)


def _simple(cosines: list[float], **changes: object) -> tuple[Pool, QueryFeatures]:
    count = len(cosines)
    vectors = np.zeros((count, _D), dtype=np.float32)
    vectors[:, 0] = cosines
    vectors[:, 1] = np.sqrt(1 - np.square(cosines))
    nothing = Rows.of([np.zeros((0, _D), np.int8)] * count, _D)
    pool = Pool(
        ids=tuple(f"m{position}" for position in range(count)),
        vectors=vectors,
        embedded=np.ones(count, np.bool_),
        sentences=nothing,
        tokens=nothing,
        keyword=np.zeros(count, np.float32),
        actor_match=np.full(count, 0.5, np.float32),
        date_match=None,
        is_question=np.zeros(count, np.bool_),
        sessions=np.full(count, -1, np.int64),
        sequences=np.zeros(count, np.int64),
        exact=np.zeros(count, np.bool_),
    )
    query = QueryFeatures(np.eye(1, _D, dtype=np.float32)[0], np.zeros((0, _D), np.float32))
    return replace(pool, **changes), query  # type: ignore[arg-type]


def _shuffled(pool: Pool, order: list[int]) -> Pool:
    def rows(these: Rows) -> Rows:
        return Rows.of([these.matrix[these.bounds[i] : these.bounds[i + 1]] for i in order], these.matrix.shape[1])

    at = np.array(order, dtype=np.int64)
    return Pool(
        ids=tuple(pool.ids[i] for i in order),
        vectors=pool.vectors[at],
        embedded=pool.embedded[at],
        sentences=rows(pool.sentences),
        tokens=rows(pool.tokens),
        keyword=pool.keyword[at],
        actor_match=pool.actor_match[at],
        date_match=None if pool.date_match is None else pool.date_match[at],
        is_question=pool.is_question[at],
        sessions=pool.sessions[at],
        sequences=pool.sequences[at],
        exact=pool.exact[at],
        first_person=None if pool.first_person is None else pool.first_person[at],
        tells_time=None if pool.tells_time is None else pool.tells_time[at],
        options={name: values[at] for name, values in pool.options.items()},
    )


@given(_pools(), _queries(), _WEIGHTS)
def test_every_member_is_ordered_once_best_first_with_ties_by_id(
    pool: Pool, query: QueryFeatures, weights: Weights
) -> None:
    ranking = rank(pool, query, weights)
    assert sorted(ranking.order.tolist()) == list(range(len(pool)))
    assert np.isfinite(ranking.scores).all()
    keys = [(-float(ranking.scores[i]), pool.ids[i]) for i in ranking.order]
    assert keys == sorted(keys)


@given(_pools(), _queries(), _WEIGHTS)
def test_exact_members_come_first(pool: Pool, query: QueryFeatures, weights: Weights) -> None:
    exact = pool.exact[rank(pool, query, weights).order].tolist()
    assert exact == sorted(exact, reverse=True)


@given(_pools(), _queries(), _WEIGHTS, st.randoms())
def test_the_order_does_not_depend_on_the_order_of_the_pool(
    pool: Pool, query: QueryFeatures, weights: Weights, random: object
) -> None:
    order = list(range(len(pool)))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = _shuffled(pool, order)
    scores = dict(zip(pool.ids, rank(pool, query, weights).scores.tolist(), strict=True))
    again = dict(zip(other.ids, rank(other, query, weights).scores.tolist(), strict=True))
    assert scores == pytest.approx(again, abs=1e-3)


@given(_pools(), _queries(), _WEIGHTS)
def test_signals_cover_every_member_and_stay_in_range(pool: Pool, query: QueryFeatures, weights: Weights) -> None:
    for name, values in rank(pool, query, weights).signals.items():
        assert values.shape == (len(pool),), name
        assert len(values) == 0 or (0 <= values.min() and values.max() <= 1.000001), name


@given(pool=_pools(), query=_queries(), weights=_WEIGHTS)
def test_what_was_scaled_over_the_pool_is_told_unscaled_too(pool: Pool, query: QueryFeatures, weights: Weights) -> None:
    ranking = rank(pool, query, weights)
    assert pool.keyword.tolist() == ranking.raw["keyword"].tolist()
    assert ("late_interaction" in ranking.signals) == ("late_interaction" in ranking.raw)
    if "late_interaction" in ranking.raw:
        raw, scaled = ranking.raw["late_interaction"], ranking.signals["late_interaction"]
        assert scaled.tolist() == minmax(raw, pool.embedded).tolist()
        told = signals_of(ranking, 0)
        assert (float(raw[0]), float(pool.keyword[0])) == (told.late_interaction, told.keyword)


def test_equal_memories_are_ordered_by_id() -> None:
    pool, query = _simple([0.5, 0.5, 0.9])
    assert rank(pool, query, BALANCED).order.tolist() == [2, 0, 1]


def test_relevance_orders_when_nothing_else_is_known() -> None:
    pool, query = _simple([0.2, 0.9, 0.5])
    assert rank(pool, query, BALANCED).order.tolist() == [1, 2, 0]


def test_the_named_actor_beats_a_near_tie() -> None:
    pool, query = _simple([0.9, 0.85, 0.1], actor_match=np.array([0, 1, 0], np.float32))
    assert rank(pool, query, BALANCED).order[0] == 1


def test_a_named_date_beats_a_near_tie() -> None:
    pool, query = _simple([0.9, 0.85, 0.1], date_match=np.array([0, 1, 0], np.float32))
    assert rank(pool, query, BALANCED).order[0] == 1


@pytest.mark.parametrize("form", ["first_person", "tells_time"])
def test_the_form_of_an_answer_beats_a_near_tie(form: str) -> None:
    pool, query = _simple([0.9, 0.88, 0.1], **{form: np.array([False, True, False])})
    assert rank(pool, query, BALANCED).order[0] == 1


def test_a_question_yields_to_a_near_tie_that_tells() -> None:
    pool, query = _simple([0.9, 0.89, 0.1], is_question=np.array([True, False, False]))
    assert rank(pool, query, BALANCED).order[0] == 1


def test_a_turn_without_content_words_matches_through_its_neighbour() -> None:
    tokens = Rows.of(
        [np.eye(1, _T, dtype=np.int8) * 127, np.zeros((0, _T), np.int8)] + [-np.eye(1, _T, dtype=np.int8)] * 2, _T
    )
    pool, query = _simple(
        [0.5, 0.5, 0.5, 0.4],
        tokens=tokens,
        sessions=np.zeros(4, np.int64),
        sequences=np.array([1, 2, 5, 9], np.int64),
    )
    asked = replace(query, tokens=np.eye(1, _T, dtype=np.float32))
    late = rank(pool, asked, BALANCED).signals["late_interaction"]
    assert late[0] == 1.0
    assert late[1] > late[2] == late[3] == 0.0


def test_a_short_turn_after_a_question_that_matches_is_taken_for_its_answer() -> None:
    short, long = (np.ones((count, _T), np.int8) for count in (1, 40))
    pool, query = _simple(
        [0.9, 0.3, 0.3, 0.9, 0.3, 0.9, 0.3],
        tokens=Rows.of([short, short, long, short, short, short, short], _T),
        is_question=np.array([True, False, False, True, False, False, False]),
        sessions=np.array([0, 0, 1, 1, 2, 3, 3], np.int64),
        sequences=np.array([1, 2, 2, 1, 1, 1, 2], np.int64),
    )
    neighbour = rank(pool, query, BALANCED).signals["neighbour"]
    after_question, long_after_question, alone, after_statement = neighbour[[1, 2, 4, 6]]
    assert after_question > long_after_question == after_statement > alone == 0


def test_an_answer_is_lifted_by_the_turn_before_it() -> None:
    pool, query = _simple(
        [0.9, 0.5, 0.5],
        sessions=np.array([0, 0, 1], np.int64),
        sequences=np.array([1, 2, 2], np.int64),
    )
    assert rank(pool, query, BALANCED).order.tolist() == [0, 1, 2]


def test_a_late_embedding_is_no_verdict() -> None:
    pool, query = _simple(
        [0.9, 0.0, 0.1],
        embedded=np.array([True, False, True]),
        keyword=np.array([1.0, 9.0, 0.5], np.float32),
    )
    assert rank(pool, query, BALANCED).order[0] == 1


def test_without_a_query_vector_keywords_decide() -> None:
    pool, query = _simple([0.9, 0.1], keyword=np.array([1.0, 2.0], np.float32))
    ranking = rank(pool, replace(query, vector=None), BALANCED)
    assert ranking.order.tolist() == [1, 0]
    assert ranking.cosines.tolist() == [0.0, 0.0]


def test_late_interaction_is_skipped_when_its_weight_is_zero() -> None:
    tokens = Rows.of([np.full((1, _T), 127, np.int8), np.zeros((1, _T), np.int8)], _T)
    pool, query = _simple([0.5, 0.5], tokens=tokens)
    asked = replace(query, tokens=np.ones((1, _T), np.float32))
    assert "late_interaction" not in rank(pool, asked, PRESETS["fast"]).signals
    assert rank(pool, asked, BALANCED).signals["late_interaction"].tolist() == [1.0, 0.0]


def test_diversity_spreads_near_ties() -> None:
    pool, query = _simple([0.9, 0.9, 0.5, 0.0])
    vectors = pool.vectors.copy()
    vectors[2] = [0.89, 0, 0.456, 0]
    spread = rank(replace(pool, vectors=vectors), query, EXPLORATORY)
    assert spread.order.tolist() == [0, 2, 1, 3]


def test_an_empty_pool_has_an_empty_ranking() -> None:
    pool, query = _simple([])
    assert rank(pool, query, BALANCED).order.tolist() == []


def test_another_strategy_can_take_its_place() -> None:
    class Newest:
        def rank(self, pool: Pool, query: QueryFeatures, weights: Weights) -> object:
            return RelevanceScorer().rank(pool, query, weights)

    scorer: Scorer = RelevanceScorer()
    pool, query = _simple([0.2, 0.9])
    assert scorer.rank(pool, query, BALANCED).order.tolist() == [1, 0]
    assert isinstance(Newest().rank(pool, query, BALANCED), type(rank(pool, query, BALANCED)))

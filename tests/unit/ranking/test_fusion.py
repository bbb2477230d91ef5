"""Legs on one scale, and their sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memory_server.domain.fusion import minmax, reciprocal_ranks, weighted

_FLOATS = st.floats(min_value=-1e6, max_value=1e6, width=32)
_SCORES = st.integers(min_value=1, max_value=30).flatmap(lambda n: arrays(np.float32, n, elements=_FLOATS))


@given(_SCORES)
def test_scaled_scores_stay_within_zero_and_one_and_keep_their_order(scores: np.ndarray) -> None:
    scaled = minmax(scores)
    assert 0 <= scaled.min() <= scaled.max() <= 1
    order = np.argsort(scores, kind="stable")
    assert (np.diff(scaled[order]) >= 0).all()


@given(_SCORES)
def test_the_best_gets_one_unless_all_are_equal(scores: np.ndarray) -> None:
    best = minmax(scores)[scores.argmax()]
    assert best == (1.0 if scores.min() < scores.max() else 0.0)


def test_a_span_of_zero_gives_zero_and_so_does_an_empty_pool() -> None:
    assert minmax(np.full(3, 7.0)).tolist() == [0.0, 0.0, 0.0]
    assert minmax(np.zeros(0)).tolist() == []


@given(_SCORES, st.data())
def test_members_without_a_score_neither_count_nor_gain(scores: np.ndarray, data: st.DataObject) -> None:
    known = data.draw(arrays(np.bool_, len(scores)))
    scaled = minmax(scores, known)
    assert scaled[~known].tolist() == [0.0] * int((~known).sum())
    assert scaled[known].tolist() == minmax(scores[known]).tolist()


@given(st.integers(1, 20), st.floats(0, 1), st.data())
def test_raising_one_leg_never_lowers_the_sum(count: int, weight: float, data: st.DataObject) -> None:
    unit = arrays(np.float32, count, elements=st.floats(0, 1, width=32))
    keyword, dense, more = data.draw(unit), data.draw(unit), data.draw(unit)
    before = weighted([(weight, keyword), (1 - weight, dense)])
    after = weighted([(weight, np.maximum(keyword, more)), (1 - weight, dense)])
    assert (after >= before).all()
    assert before.max() <= 1.000001


def test_a_sum_of_no_legs_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one leg"):
        weighted([])


def test_reciprocal_ranks_add_up_over_legs() -> None:
    assert reciprocal_ranks([["a", "b"], ["b", "b", "c"]]) == pytest.approx(
        {"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 62}
    )
    assert reciprocal_ranks([["a"], ["b"]], k=0, weights=[3, 1]) == {"a": 3.0, "b": 1.0}

"""Options re-order near-ties and never bury relevance."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memory_server.domain.adjustments import BOUND, adjustment, density, diversified, recency
from memory_server.domain.presets import PRESETS, Weights, preset

_UNIT = st.floats(0, 1, width=32)
_OPTIONS = ("recency", "importance", "confidence", "density", "graph")


@st.composite
def _case(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, Weights]:
    count = draw(st.integers(1, 12))
    values = arrays(np.float32, count, elements=_UNIT)
    vectors = draw(arrays(np.float32, (count, 3), elements=st.floats(-1, 1, width=32)))
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    chosen: dict[str, Any] = {name: draw(st.floats(0, 1)) for name in (*_OPTIONS, "diversity")}
    signals = {name: draw(values) for name in _OPTIONS}
    return draw(values), signals, vectors @ vectors.T, Weights(**chosen)


@given(_case())
def test_a_member_ahead_by_more_than_the_bound_is_never_overtaken(
    case: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, Weights],
) -> None:
    scores, signals, similar, weights = case
    after = diversified(scores + adjustment(scores, signals, weights), similar, weights)
    lead = BOUND * scores.max() * 1.05 + 1e-4  # diversity's unit is set by the adjusted best, a little higher
    for better, worse in combinations(np.argsort(-scores), 2):
        if scores[better] - scores[worse] > lead:
            assert after[better] > after[worse]


@given(_case())
def test_adjustments_stay_within_the_bound(
    case: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, Weights],
) -> None:
    scores, signals, _, weights = case
    added = adjustment(scores, signals, weights)
    assert 0 <= added.min()
    assert added.max() <= BOUND * scores.max() + 1e-6


def test_no_option_no_change() -> None:
    scores = np.array([0.5, 0.25], dtype=np.float32)
    assert adjustment(scores, {"recency": np.ones(2, np.float32)}, Weights()).tolist() == [0.0, 0.0]


def test_an_unknown_importance_is_neither_praised_nor_blamed() -> None:
    scores = np.ones(3, dtype=np.float32)
    low, unknown, high = adjustment(
        scores, {"importance": np.array([0, np.nan, 1], np.float32)}, Weights(importance=1.0)
    )
    assert low < unknown < high


def test_recency_halves_with_each_half_life() -> None:
    faded = recency(np.array([0.0, 7.0, 14.0, -1.0, np.nan]), np.full(5, 7.0))
    assert faded.tolist() == [1.0, 0.5, 0.25, 1.0, 0.0]


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_the_newer_is_never_less_recent(one: float, other: float) -> None:
    newer, older = recency(np.array(sorted((one, other))), np.full(2, 7.0))
    assert newer >= older


def test_copies_are_crowded_and_strangers_are_not() -> None:
    similar = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
    assert density(similar).tolist() == [0.0, 0.0, 1.0]
    assert density(np.ones((1, 1), np.float32)).tolist() == [1.0]


def test_diversity_puts_a_near_tie_of_another_kind_before_a_copy() -> None:
    scores = np.array([1.0, 0.99, 0.95], dtype=np.float32)
    similar = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
    after = diversified(scores, similar, Weights(diversity=1.0))
    assert np.argsort(-after).tolist() == [0, 2, 1]


def _greedy(scores: np.ndarray, similar: np.ndarray, penalty: float) -> list[int]:
    left, picked = list(range(len(scores))), list[int]()
    while left:
        value = {i: scores[i] - penalty * max((max(similar[i, j], 0.0) for j in picked), default=0.0) for i in left}
        picked.append(max(left, key=lambda i: value[i]))
        left.remove(picked[-1])
    return picked


@given(_case())
def test_ordering_by_diversified_scores_is_greedy_mmr(
    case: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, Weights],
) -> None:
    scores, _, similar, _ = case
    after = diversified(scores, similar, Weights(diversity=1.0))
    expected = _greedy(scores, similar, BOUND * float(scores.max()))
    assert after[np.argsort(-after, kind="stable")].tolist() == pytest.approx(after[expected].tolist(), abs=1e-5)


def test_presets_have_no_option_on_except_where_named() -> None:
    assert {name: weights.options for name, weights in PRESETS.items()} == {
        "balanced": 0.0,
        "fast": 0.0,
        "precise": 0.0,
        "recent": 1.0,
        "exploratory": 1.0,
    }


def test_a_request_sets_options_over_the_preset() -> None:
    assert preset("recent", recency=0.25, graph=0.5) == Weights(recency=0.25, graph=0.5)
    with pytest.raises(KeyError):
        preset("unheard-of")
    with pytest.raises(ValueError, match="diversity"):
        preset(diversity=1.5)

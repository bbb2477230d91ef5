"""MaxSim over one matrix against the loop that defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memory_server.domain.late_interaction import ABSENT, INT8_SCALE, REACH, Rows, best_rows, maxsim, reaching

_WIDTH = 4
_MATRICES = st.lists(
    st.integers(0, 5).flatmap(lambda rows: arrays(np.int8, (rows, _WIDTH), elements=st.integers(-127, 127))),
    min_size=1,
    max_size=6,
)
_QUERIES = st.integers(1, 4).flatmap(
    lambda rows: arrays(np.float32, (rows, _WIDTH), elements=st.floats(-1, 1, width=32))
)


def _naive(matrix: np.ndarray, queries: np.ndarray, weights: list[float]) -> float:
    if not len(matrix):
        return 0.0
    best = [max(float(row.astype(float) @ query) / INT8_SCALE for row in matrix) for query in queries]
    return sum(weight * value for weight, value in zip(weights, best, strict=True)) / sum(weights)


@given(_MATRICES, _QUERIES, st.data())
def test_maxsim_equals_the_naive_loop(matrices: list[np.ndarray], queries: np.ndarray, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.5, 9), min_size=len(queries), max_size=len(queries)))
    scores = maxsim(Rows.of(matrices, _WIDTH), queries, np.array(weights, dtype=np.float32))
    expected = [_naive(matrix, queries, weights) for matrix in matrices]
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)


@given(_MATRICES, _QUERIES)
def test_without_weights_all_tokens_count_alike(matrices: list[np.ndarray], queries: np.ndarray) -> None:
    rows = Rows.of(matrices, _WIDTH)
    assert maxsim(rows, queries).tolist() == maxsim(rows, queries, np.full(len(queries), 2, np.float32)).tolist()


@given(_MATRICES, _QUERIES)
def test_memories_without_rows_do_not_disturb_the_others(matrices: list[np.ndarray], queries: np.ndarray) -> None:
    empty = np.zeros((0, _WIDTH), np.int8)
    spread = [one for matrix in matrices for one in (empty, matrix)] + [empty]
    best = best_rows(Rows.of(spread, _WIDTH), queries)
    assert best[0::2].tolist() == np.zeros((len(matrices) + 1, len(queries))).tolist()
    assert best[1::2] == pytest.approx(best_rows(Rows.of(matrices, _WIDTH), queries), abs=1e-6)


def test_nothing_to_compare_scores_zero() -> None:
    empty = Rows.of([np.zeros((0, _WIDTH), np.int8)] * 2, _WIDTH)
    assert maxsim(empty, np.ones((1, _WIDTH), np.float32)).tolist() == [0.0, 0.0]
    one = Rows.of([np.ones((1, _WIDTH), np.int8)], _WIDTH)
    assert maxsim(one, np.zeros((0, _WIDTH), np.float32)).tolist() == [0.0]
    assert maxsim(one, np.ones((1, _WIDTH), np.float32), np.zeros(1, np.float32)).tolist() == [0.0]


def test_rows_know_who_has_any() -> None:
    rows = Rows.of([np.zeros((2, _WIDTH), np.int8), np.zeros((0, _WIDTH), np.int8)], _WIDTH)
    assert rows.present.tolist() == [True, False]
    assert rows.bounds.tolist() == [0, 2, 2]


def test_neighbours_answer_for_what_a_memory_does_not_say() -> None:
    best = np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]], dtype=np.float32)
    previous = np.array([ABSENT, 0, ABSENT])
    following = np.array([1, ABSENT, ABSENT])
    reached = reaching(best, previous, following)
    assert reached[0].tolist() == pytest.approx([0.9, REACH * 0.8])
    assert reached[1].tolist() == pytest.approx([REACH * 0.9, 0.8])
    assert reached[2].tolist() == [0.0, 0.0]


@given(st.integers(1, 6), st.data())
def test_reaching_out_never_lowers_a_match(count: int, data: st.DataObject) -> None:
    best = data.draw(arrays(np.float32, (count, 2), elements=st.floats(-1, 1, width=32)))
    positions = arrays(np.int64, count, elements=st.integers(ABSENT, count - 1))
    assert (reaching(best, data.draw(positions), data.draw(positions)) >= best).all()

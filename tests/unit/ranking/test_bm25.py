"""BM25 from stored counts against the formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_server.domain.bm25 import K1, B, bm25, idf

_MEMORIES = st.lists(st.lists(st.sampled_from("abcdef"), max_size=12), min_size=1, max_size=8)


def _naive(memory: list[str], query: list[str], memories: list[list[str]]) -> float:
    mean = sum(map(len, memories)) / len(memories)
    score = 0.0
    for term in query:
        holding = sum(term in other for other in memories)
        weight = math.log(1 + (len(memories) - holding + 0.5) / (holding + 0.5))
        count = memory.count(term)
        if count:
            score += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * len(memory) / mean))
    return score


def _scores(memories: list[list[str]], query: list[str]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    terms = sorted(set(query))
    counts = np.array([[memory.count(term) for term in terms] for memory in memories]).reshape(len(memories), -1)
    lengths = np.array([len(memory) for memory in memories])
    repeats = np.array([query.count(term) for term in terms])
    frequencies = (counts > 0).sum(axis=0)
    return bm25(counts, lengths, idf(len(memories), frequencies) * repeats, float(lengths.mean()))


@given(_MEMORIES, st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=6))
def test_scores_equal_the_formula(memories: list[list[str]], query: list[str]) -> None:
    expected = [_naive(memory, query, memories) for memory in memories]
    assert _scores(memories, query).tolist() == pytest.approx(expected, rel=1e-5)


@given(_MEMORIES, st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=6))
def test_a_memory_scores_above_zero_exactly_when_it_has_a_term_of_the_query(
    memories: list[list[str]], query: list[str]
) -> None:
    expected = [bool(set(memory) & set(query)) for memory in memories]
    assert expected == (_scores(memories, query) > 0).tolist()


@given(st.integers(min_value=1, max_value=10**9), st.integers(min_value=0, max_value=10**9))
def test_idf_is_positive_and_falls_with_frequency(rows: int, frequency: int) -> None:
    rarer, commoner = idf(rows, np.array([frequency, frequency + 1]))
    assert 0 < commoner <= rarer


def test_a_frequency_that_ran_ahead_of_the_row_count_counts_as_all_rows() -> None:
    assert idf(10, np.array([12]))[0] == idf(10, np.array([10]))[0]


def test_no_statistics_yet_means_no_length_normalisation() -> None:
    scores = bm25(np.array([[1], [1]]), np.array([1, 100]), np.array([1.0]), 0.0)
    assert scores[0] == scores[1] > 0


def test_a_query_without_terms_scores_zero() -> None:
    assert bm25(np.zeros((2, 0), np.int32), np.array([3, 4]), np.zeros(0), 3.5).tolist() == [0.0, 0.0]

"""Where an importance stands among all importances seen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_server.domain.quantile_sketch import QuantileSketch

_VALUES = st.lists(st.floats(-1e6, 1e6), max_size=40)


def _sketch(values: list[float]) -> QuantileSketch:
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(_VALUES, st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_a_larger_value_never_ranks_lower(values: list[float], asked: list[float]) -> None:
    ranks = _sketch(values).ranks(sorted(asked))
    assert ranks == sorted(ranks)
    assert 0 <= ranks[0] <= ranks[-1] <= 1


@given(_VALUES, _VALUES)
def test_merging_equals_having_seen_everything(one: list[float], other: list[float]) -> None:
    merged = _sketch(one)
    merged.merge(_sketch(other))
    assert merged.to_counts() == _sketch(one + other).to_counts()
    assert merged.total == len(one) + len(other)


@given(_VALUES, st.floats(-1e6, 1e6))
def test_removing_undoes_adding(values: list[float], value: float) -> None:
    sketch = _sketch(values)
    sketch.add(value)
    sketch.remove(value)
    assert sketch.to_counts() == _sketch(values).to_counts()


@given(_VALUES)
def test_stored_counts_restore_the_sketch(values: list[float]) -> None:
    sketch = _sketch(values)
    restored = QuantileSketch(sketch.to_counts())
    assert restored.to_counts() == sketch.to_counts()
    assert restored.ranks([0.0, 1.0]) == sketch.ranks([0.0, 1.0])


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 100))
def test_ranks_of_well_separated_values_are_exact(values: list[int], asked: int) -> None:
    below, same = sum(value < asked for value in values), values.count(asked)
    # Neighbours above about 50 share a bucket of two percent: spread them out.
    assert _sketch([1.1**value for value in values]).rank(1.1**asked) == pytest.approx((below + same / 2) / len(values))


def test_zero_is_a_value_and_nothing_seen_is_the_middle() -> None:
    assert QuantileSketch().rank(3.0) == 0.5
    assert _sketch([0.0, 1.0, 1.0]).rank(0.0) < 0.5


def test_buckets_stay_few_whatever_comes_in() -> None:
    sketch = _sketch([sign * 10.0**exponent for sign in (-1, 1) for exponent in range(-300, 300)])
    assert len(sketch.to_counts()) <= 2 * 2_450


def test_removing_what_was_never_added_changes_nothing() -> None:
    sketch = _sketch([1.0])
    sketch.remove(2.0)
    assert sketch.total == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        QuantileSketch().add(value)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        QuantileSketch({1: -1})

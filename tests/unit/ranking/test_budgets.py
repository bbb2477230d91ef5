"""A recall's deadline among its stages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_server.domain.budgets import MAX_GRAPH_S, split_deadline


@given(st.floats(0, 3600))
def test_stages_share_the_whole_deadline_and_no_more(total_s: float) -> None:
    parts = split_deadline(total_s)
    assert parts.embed_s + parts.index_s + parts.graph_s + parts.rank_s == pytest.approx(total_s)
    assert 0 <= parts.graph_s <= MAX_GRAPH_S


def test_a_short_deadline_is_split_in_tenths() -> None:
    parts = split_deadline(0.2)
    assert (parts.embed_s, parts.index_s, parts.graph_s, parts.rank_s) == pytest.approx((0.06, 0.08, 0.04, 0.02))


def test_a_deadline_in_the_past_leaves_nothing() -> None:
    parts = split_deadline(-1.0)
    assert (parts.embed_s, parts.index_s, parts.graph_s, parts.rank_s) == (0.0, 0.0, 0.0, 0.0)

"""Which tokens of a text are kept, and what their vectors are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from soma_contract.embedders.token_vectors import TokenProjection, content_mask, kept_tokens, vocabulary_idf


def ids(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_few_tokens_are_all_kept() -> None:
    np.testing.assert_array_equal(kept_tokens(ids(5_000, 4_000, 5_000), limit=3), [0, 1, 2])


def test_the_rarest_are_kept_in_text_order() -> None:
    np.testing.assert_array_equal(kept_tokens(ids(2_000, 9_000, 3_000, 8_000), limit=2), [1, 3])


def test_a_refrain_leaves_room_for_other_words() -> None:
    kept = kept_tokens(ids(*[29_000] * 20, 2_000, 3_000), limit=6)
    np.testing.assert_array_equal(kept, [0, 1, 2, 3, 20, 21])


def test_the_callers_weights_decide() -> None:
    np.testing.assert_array_equal(kept_tokens(ids(9, 8, 7), lambda tokens: (10.0 - tokens).astype(np.float32), 1), [2])


@given(st.lists(st.integers(0, 50), max_size=300), st.integers(1, 64))
def test_what_is_kept_is_in_order_without_repeats_and_bounded(tokens: list[int], limit: int) -> None:
    kept = kept_tokens(ids(*tokens), limit=limit)
    assert len(kept) == min(len(tokens), limit)
    assert list(kept) == sorted(set(kept.tolist()))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_at_the_limit_no_piece_is_lost_while_another_repeats_often(tokens: list[int]) -> None:
    kept = ids(*tokens)[kept_tokens(ids(*tokens), limit=160)]
    # 51 pieces three times each fit into the limit, so none may be missing.
    assert set(kept.tolist()) == set(tokens)


def test_later_entries_of_the_vocabulary_count_as_rarer() -> None:
    weights = vocabulary_idf(ids(5, 1_001, 5_000, 30_000))
    assert (weights > 0).all()
    assert (np.diff(weights) >= 0).all()


def test_markers_punctuation_and_stop_words_are_no_content() -> None:
    words = ["[CLS]", "[unused7]", ",", "##.", "the", "what", "lake", "##ing", "42", "é"]
    mask = content_mask({word: index for index, word in enumerate(words)})
    assert [word for word, content in zip(words, mask, strict=True) if content] == ["lake", "##ing", "42", "é"]


def test_a_packed_projection_projects_the_same() -> None:
    chance = np.random.default_rng(3)
    mean, basis = chance.normal(size=384) / 50, chance.normal(size=(384, 64))
    projection = TokenProjection(mean.astype(np.float32), basis.astype(np.float32))
    states = chance.normal(size=(4, 384)).astype(np.float32)
    again = TokenProjection.unpacked(projection.packed())
    np.testing.assert_array_equal(again(states), projection(states))
    np.testing.assert_allclose(np.linalg.norm(projection(states), axis=1), 1, atol=1e-6)

"""Counting and cutting by tokens, with the real tokenizer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from soma_contract.tokenizer import count_tokens, token_text, truncate


def test_words_and_punctuation_are_counted() -> None:
    assert [count_tokens(text) for text in ("", "hello", "Hello, world!", "axolotl")] == [0, 1, 4, 3]


def test_a_long_text_is_counted_whole() -> None:
    assert count_tokens("hello " * 5_000) == 5_000


def test_a_text_is_cut_at_the_end_of_a_word() -> None:
    assert truncate("The axolotl swims. It is hungry.", 3) == "The"
    assert truncate("The axolotl swims. It is hungry.", 6) == "The axolotl swims"


def test_a_text_within_the_limit_stays_as_it_is() -> None:
    assert truncate("  spaces  kept \n", 10) == "  spaces  kept \n"


def test_a_single_word_beyond_the_limit_is_cut_inside() -> None:
    assert truncate("axolotl", 1) == "ax"


def test_no_room_leaves_nothing() -> None:
    assert truncate("hello", 0) == ""


@given(st.text(max_size=200), st.integers(0, 30))
def test_a_cut_text_is_a_prefix_within_the_limit(text: str, limit: int) -> None:
    cut = truncate(text, limit)
    assert text.startswith(cut)
    assert count_tokens(cut) <= limit


def test_many_threads_count_alike() -> None:
    texts = [f"thread {number} counts " + "words " * number for number in range(64)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(count_tokens, texts)) == [count_tokens(text) for text in texts]


def test_an_id_spells_its_piece() -> None:
    assert (token_text(101), token_text(10**9)) == ("[CLS]", "")

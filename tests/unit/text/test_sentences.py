"""Pieces of a text that get vectors of their own."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from soma_contract.text import split_sentences
from soma_contract.text.sentences import MAX_SENTENCES, MIN_SENTENCE_CHARS

_WORDS = st.text(alphabet="abcdefgh .!?\n", max_size=3_000)


def test_sentences_and_lines_are_pieces() -> None:
    text = "The first sentence is here. And then the second one too!\nA line of its own without a stop"
    assert split_sentences(text) == [
        "The first sentence is here.",
        "And then the second one too!",
        "A line of its own without a stop",
    ]


def test_crumbs_join_what_follows() -> None:
    assert split_sentences("Sure! I went to the museum yesterday.") == ["Sure! I went to the museum yesterday."]


def test_a_last_crumb_joins_what_came_before() -> None:
    assert split_sentences("I went to the museum yesterday. Nice!") == ["I went to the museum yesterday. Nice!"]


def test_list_markup_is_no_content() -> None:
    assert split_sentences("- **Research** and planning of the trip\n### Another heading of the text") == [
        "Research and planning of the trip",
        "Another heading of the text",
    ]


def test_blank_text_has_no_pieces() -> None:
    assert split_sentences(" \n ") == []


@given(_WORDS)
def test_there_are_never_more_pieces_than_allowed(text: str) -> None:
    assert len(split_sentences(text)) <= MAX_SENTENCES


@given(_WORDS, st.integers(min_value=1, max_value=50))
def test_no_word_is_lost_or_repeated(text: str, limit: int) -> None:
    assert re.findall(r"\w+", text) == re.findall(r"\w+", " ".join(split_sentences(text, limit)))


@given(_WORDS)
def test_only_a_whole_text_may_be_shorter_than_a_sentence(text: str) -> None:
    pieces = split_sentences(text)
    assert len(pieces) < 2 or min(map(len, pieces)) >= MIN_SENTENCE_CHARS

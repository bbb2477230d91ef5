"""Keyword terms: the same words in, the same terms out, on both sides."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soma_contract.text import Form, analyzer, asks_when, form_of, is_question, keyword_text, stop_words
from soma_contract.text.analysis import MAX_TERM_BYTES, Analyzer
from soma_contract.text.questions import asks_for_latest


def test_words_are_split_lowered_stopped_and_stemmed() -> None:
    assert analyzer().terms("When did Caroline's RUNNING shoes_arrive?") == ["carolin", "run", "shoe", "arriv"]


def test_contractions_leave_nothing_behind() -> None:
    assert analyzer().terms("I don't, she'll, we've, it's, they're, he'd, I'm") == []


def test_question_words_and_auxiliaries_are_stop_words() -> None:
    words = "when what who which how did does do have is was where why whose"
    assert analyzer().terms(words) == []


def test_may_is_a_month_and_stays() -> None:
    assert analyzer().terms("in May") == ["may"]


def test_numbers_and_other_scripts_are_terms() -> None:
    assert analyzer().terms("2023-05-08 naïve Привет 東京") == ["2023", "05", "08", "naïv", "привет", "東京"]


def test_vowel_signs_stay_with_their_word() -> None:
    assert analyzer().terms("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_overlong_tokens_are_dropped() -> None:
    assert analyzer().terms("a" * MAX_TERM_BYTES + " " + "b" * (MAX_TERM_BYTES + 1)) == ["a" * MAX_TERM_BYTES]


def test_another_language_has_its_own_stemmer() -> None:
    assert Analyzer("german").terms("Häuser liefen") == ["haus", "lief"]


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="klingon"):
        Analyzer("klingon")


def test_the_english_stop_list_has_about_two_hundred_words() -> None:
    assert 170 <= len(stop_words("english")) <= 240
    assert stop_words("klingon") == frozenset()


@given(st.text(max_size=200))
def test_counts_count_the_terms(text: str) -> None:
    assert Counter(analyzer().terms(text)) == analyzer().counts(text)


@given(st.text(max_size=100), st.text(max_size=100))
def test_terms_of_two_lines_are_the_terms_of_each(first: str, second: str) -> None:
    terms = analyzer().terms
    assert terms(first) + terms(second) == terms(f"{first}\n{second}")


@given(st.text(max_size=200))
def test_case_does_not_matter_for_plain_letters(text: str) -> None:
    plain = "".join(character for character in text if character.isascii())
    assert analyzer().terms(plain.lower()) == analyzer().terms(plain.upper())


def test_keyword_text_is_actor_text_and_spelled_date() -> None:
    at = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert keyword_text("Caroline", "Good to see you!", at) == "Caroline Good to see you! 8 May 2023 Monday"
    assert keyword_text("", "Good to see you!") == "Good to see you!"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How are you?", True),
        ('She asked "why?"', True),
        ("Really? I went there.", False),
        ("", False),
        ("**Shall we?** \n", True),
        ("元気ですか？", True),
    ],
)
def test_a_turn_that_ends_by_asking_is_a_question(text: str, expected: bool) -> None:
    assert expected == is_question(text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("What is my current budget?", True), ("Where do I live now?", False), ("What is the latest version?", True)],
)
def test_asking_for_the_present_state_is_recognised(query: str, expected: bool) -> None:
    assert expected == asks_for_latest(query)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I went there yesterday.", Form(asks=False, first_person=True, tells_time=True)),
        ("The user prefers tea", Form(asks=False, first_person=False, tells_time=False)),
        ("Did you go in 2023?", Form(asks=True, first_person=False, tells_time=True)),
        ("It was my day", Form(asks=False, first_person=True, tells_time=True)),
        ("In the US a house", Form(asks=False, first_person=False, tells_time=False)),
    ],
)
def test_form_shows_who_speaks_of_himself_and_who_tells_a_time(text: str, expected: Form) -> None:
    assert expected == form_of(text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("When did she go?", True), ("Which year was it?", True), ("Where did she go?", False), ("whenever", False)],
)
def test_asking_for_a_time_is_recognised(query: str, expected: bool) -> None:
    assert expected == asks_when(query)

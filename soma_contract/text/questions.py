"""The form of questions and answers: who asks, who tells of himself, who tells a time.

An answer to "When did you …?" holds a time, and whoever knows something about a person mostly is that person, saying
"I".  Forms are told by English words and punctuation; in another language these signals are silent, not wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_READ_CHARS = 500
"""How much of a text its form is read from: a long message shows it early, and reading all of it costs time."""
_CLOSERS = " \t\r\n\"'”’)]}*_"
_LATEST = re.compile(
    r"\b(?:latest|newest|most recent(?:ly)?|current(?:ly)?|nowadays|these days|right now|at the moment|"
    r"so far|as of now|up to date|still)\b",
    re.IGNORECASE,
)
_ASKS_WHEN = re.compile(r"\bwhen\b|\b(?:what|which) (?:date|day|week|month|year|time)\b|\bhow long\b", re.IGNORECASE)
_CONTRACTED = (f"i{mark}{ending}" for mark in "'’" for ending in ("m", "ve", "d", "ll"))
_FIRST_PERSON = frozenset({"i", "me", "my", "mine", "myself", "we", "our", "ours", "ourselves", *_CONTRACTED})
_TIME_WORDS = """
yesterday today tonight tomorrow last next ago day days week weeks weekend month months year years recently since
morning night evening summer winter spring fall autumn
monday tuesday wednesday thursday friday saturday sunday
january february march april may june july august september october november december
"""
_TIME = frozenset(_TIME_WORDS.split())
_YEAR = re.compile(r"\b(?:19|20|21)\d\d\b")
_MARKS = ".,;:!?'’\"“”()[]{}*_-–—"


@dataclass(frozen=True, slots=True)
class Form:
    """What shows in a text without understanding it."""

    asks: bool
    first_person: bool
    tells_time: bool


def form_of(text: str) -> Form:
    """Return the form of `text`: whether it ends by asking, speaks of its speaker, holds an expression of time."""
    start = text[:_READ_CHARS]
    # Whole words by splitting: several times as fast as a pattern of alternatives.
    words = {word.strip(_MARKS) for word in start.lower().split()}
    return Form(
        asks=is_question(text),
        first_person=not _FIRST_PERSON.isdisjoint(words),
        tells_time=not _TIME.isdisjoint(words) or _YEAR.search(start) is not None,
    )


def is_question(text: str) -> bool:
    """Return whether `text` ends by asking: such a turn rarely holds an answer."""
    return text.rstrip(_CLOSERS).endswith(("?", "？", "؟"))


def asks_when(query: str) -> bool:
    """Return whether `query` asks for a time, so that memories holding one are likelier answers."""
    return _ASKS_WHEN.search(query) is not None


def asks_for_latest(query: str) -> bool:
    """Return whether `query` asks for the present state, so that of two near-equal answers the newer one is meant."""
    return _LATEST.search(query) is not None

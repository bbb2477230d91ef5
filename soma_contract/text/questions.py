"""Telling questions from statements, by form alone."""

from __future__ import annotations

import re

_CLOSERS = " \t\r\n\"'”’)]}*_"
_LATEST = re.compile(
    r"\b(?:latest|newest|most recent(?:ly)?|current(?:ly)?|nowadays|these days|right now|at the moment|"
    r"so far|as of now|up to date|still)\b",
    re.IGNORECASE,
)


def is_question(text: str) -> bool:
    """Return whether `text` ends by asking: such a turn rarely holds an answer."""
    return text.rstrip(_CLOSERS).endswith(("?", "？", "؟"))


def asks_for_latest(query: str) -> bool:
    """Return whether `query` asks for the present state, so that of two near-equal answers the newer one is meant."""
    return _LATEST.search(query) is not None

"""Shortening texts by choosing sentences: always the same ones, and never a word that was not there.

A sentence counts for the terms of the question it holds and for the terms that many of the texts share, rarer ones
more; one that repeats what was chosen counts for less.  Early sentences come first among equals.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

TermsOf = Callable[[str], Iterable[str]]
Count = Callable[[str], int]
"""Counts the tokens of a text."""

_QUESTION_WEIGHT = 3.0
_REPETITION = 0.7
"""Share of a term's weight that is gone once a chosen sentence holds it."""


def best_sentences(
    sentences: Sequence[str], question: frozenset[str], most_tokens: int, terms_of: TermsOf, count: Count
) -> list[str]:
    """Return sentences of a text that fit in a budget of tokens, in their order; at least the start of one fits."""
    held = [frozenset(terms_of(sentence)) for sentence in sentences]
    weights = _weights(held, question)
    chosen: list[int] = []
    left = most_tokens
    candidates = {place: count(sentence) for place, sentence in enumerate(sentences)}
    while candidates:
        place = max(candidates, key=lambda each: (_worth(held[each], weights, candidates[each]), -each))
        tokens = candidates.pop(place)
        if tokens > left:
            continue
        left -= tokens
        chosen.append(place)
        for term in held[place]:
            weights[term] *= 1.0 - _REPETITION
    return [sentences[place] for place in sorted(chosen)]


def _weights(held: Sequence[frozenset[str]], question: frozenset[str]) -> dict[str, float]:
    frequency = Counter(term for terms in held for term in terms)
    return {
        term: math.log1p(count) * (_QUESTION_WEIGHT if term in question else 1.0) for term, count in frequency.items()
    }


def _worth(terms: frozenset[str], weights: dict[str, float], tokens: int) -> float:
    """Worth for its length: long sentences hold more terms, but take more room."""
    return sum(weights[term] for term in terms) / math.sqrt(max(tokens, 1))

"""Turning text into keyword terms, the same way in the index and in this process.

The vector index runs a custom analyzer (standard tokenizer, lowercase, our stop words, Snowball stemmer).  This module
is its twin, so that BM25 of any memory can be computed locally from stored term counts.  The two were compared term by
term: they differ in words with vowel signs, which the index breaks into pieces, and in a few stems, because the index
holds an older edition of the stemmer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

import snowballstemmer

from soma_contract.text.stop_words import stop_words

DEFAULT_LANGUAGE = "english"
MAX_TERM_BYTES = 40
"""Longer tokens are dropped (hashes, base64): the index's `length` filter does the same."""

# Vowel signs and the like belong to their letter in the scripts of India and South-East Asia.
_MARKS = "".join(chr(code) for code in range(0x900, 0x1D00) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
_WORD = re.compile(rf"(?:[^\W_]+[{_MARKS}]*)+")


class Analyzer:
    """Analyses text of one language: split, lowercase, drop stop words, stem.

    `language` is a Snowball name ("english", "german", …); an unknown one raises ValueError.
    """

    def __init__(self, language: str = DEFAULT_LANGUAGE) -> None:
        if language not in snowballstemmer.algorithms():
            raise ValueError(f"no Snowball stemmer for language {language!r}")
        self.language = language
        self.stop_words = stop_words(language)
        stem = snowballstemmer.stemmer(language).stemWord
        # Conversations repeat their words: a bounded cache makes the pure-Python stemmer a dictionary lookup.
        self._stem = lru_cache(maxsize=65_536)(stem)

    def terms(self, text: str) -> list[str]:
        """Return the terms of `text` in order, repeated as often as they occur."""
        stop, stem = self.stop_words, self._stem
        return [
            stem(word)
            for word in _WORD.findall(text.lower())
            if word not in stop and (len(word) <= 10 or len(word.encode()) <= MAX_TERM_BYTES)
        ]

    def counts(self, text: str) -> dict[str, int]:
        """Return how often each term occurs in `text`, in order of first occurrence."""
        return dict(Counter(self.terms(text)))


@lru_cache(maxsize=32)
def analyzer(language: str = DEFAULT_LANGUAGE) -> Analyzer:
    """Return the shared analyzer of `language`; raises ValueError for an unknown one."""
    return Analyzer(language)

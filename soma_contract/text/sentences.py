"""Cutting a text into the pieces that get a vector of their own.

A long message is about many things and its one vector about none of them; the best of its sentence vectors finds the
one that answers.  Pieces are cut at sentence ends and line breaks, crumbs are joined to what follows, and a text with
too many is regrouped into evenly long runs, so every part of it stays reachable.
"""

from __future__ import annotations

import re

MAX_SENTENCES = 40
MIN_SENTENCE_CHARS = 24
"""Shorter pieces ("Sure!", "Step 2.") say too little alone and are joined to the next one."""

_BREAK = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\s*\n+\s*")
_MARKUP = re.compile(r"^(?:[#>*\-+•|`=~_]+\s*|\d+[.)]\s+)+|[*_`|]{2,}|`")


def split_sentences(text: str, limit: int = MAX_SENTENCES, min_chars: int = MIN_SENTENCE_CHARS) -> list[str]:
    """Return at most `limit` pieces of `text` in order, together covering all its words; [] for blank text."""
    pieces: list[str] = []
    crumb = ""
    for raw in _BREAK.split(text):
        piece = _MARKUP.sub("", raw).strip()
        if not piece:
            continue
        crumb = f"{crumb} {piece}" if crumb else piece
        if len(crumb) >= min_chars:
            pieces.append(crumb)
            crumb = ""
    if crumb:
        if pieces:
            pieces[-1] = f"{pieces[-1]} {crumb}"
        else:
            pieces.append(crumb)
    return pieces if len(pieces) <= limit else _regroup(pieces, limit)


def _regroup(pieces: list[str], limit: int) -> list[str]:
    """Join neighbours into `limit` runs of about the same number of characters."""
    total = sum(map(len, pieces))
    groups: list[list[str]] = [[] for _ in range(limit)]
    start = 0
    for piece in pieces:
        # The middle of a piece decides its run, so no run is cut inside a piece.
        groups[min(limit - 1, (start + len(piece) // 2) * limit // total)].append(piece)
        start += len(piece)
    return [" ".join(group) for group in groups if group]

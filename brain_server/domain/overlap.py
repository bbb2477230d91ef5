"""Scores of memories that no index holds: how much of the query's terms they share."""

from __future__ import annotations

from collections.abc import Sequence

from soma_contract.memory import Memory
from soma_contract.recall import Signals
from soma_contract.text.analysis import analyzer
from soma_contract.text.keywords import keyword_text


def scored_by_terms(query: str, memories: Sequence[Memory]) -> list[tuple[Memory, float, Signals]]:
    """Return the memories that share a term with the query or are named by it, each with a score in (0, 1].

    The score is the share of the query's distinct terms found; a memory whose text, key or id is the query scores 1
    and is marked exact.
    """
    terms = set(analyzer().terms(query))
    scored = []
    for memory in memories:
        text = query.strip()
        exact = bool(text) and text in (memory.text, memory.key, memory.memory_id)
        held = set(analyzer().terms(keyword_text(memory.actor, memory.text, memory.occurred_at)))
        share = len(terms & held) / len(terms) if terms else 0.0
        if exact or share > 0:
            scored.append((memory, 1.0 if exact else share, Signals(keyword=share, exact=1.0 if exact else None)))
    return scored

"""What recall is measured against, on the same data in the same run: BM25 alone, and its usual fusion with vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.dialogues import Dialogues, Turn
from memory_server.domain.bm25 import bm25, idf
from memory_server.domain.fusion import reciprocal_ranks
from soma_contract.embedders import Priority
from soma_contract.embedders.local import LocalEmbedder
from soma_contract.text import analyzer

DEPTH = 100
"""How much of each leg the fusion sees."""
BATCH = 256

Rankings = dict[str, list[str]]


class KeywordSearch:
    """BM25 over all turns of a store: "speaker: text", our stop words and stemmer."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._ids = [turn.turn_id for turn in turns]
        self._counts = [analyzer().counts(f"{turn.actor}: {turn.text}") for turn in turns]
        self._lengths = np.array([sum(counts.values()) for counts in self._counts])
        self._frequencies: dict[str, int] = {}
        for counts in self._counts:
            for term in counts:
                self._frequencies[term] = self._frequencies.get(term, 0) + 1

    def ranked(self, query: str, depth: int) -> list[str]:
        """The best turns that hold a term of the query; ties in the order of the conversation."""
        asked = analyzer().counts(query)
        if not asked:
            return []
        counts = np.array([[each.get(term, 0) for term in asked] for each in self._counts])
        weights = idf(len(self._ids), np.array([self._frequencies.get(term, 0) for term in asked]))
        repeated = weights * np.array(list(asked.values()))
        scores = bm25(counts, self._lengths, repeated, float(self._lengths.mean()))
        return _best(scores, self._ids, depth, least=0.0)


async def keyword_and_fused(data: Dialogues, depth: int) -> tuple[Rankings, Rankings]:
    """Rankings of BM25, and of reciprocal rank fusion (k = 60) of BM25 and MiniLM over "speaker: text"."""
    keyword: Rankings = {}
    fused: Rankings = {}
    async with LocalEmbedder() as embedder:
        for store, turns in data.stores.items():
            search = KeywordSearch(turns)
            ids = [turn.turn_id for turn in turns]
            vectors = await _embed(embedder, [f"{turn.actor}: {turn.text}" for turn in turns])
            asked = [question for question in data.questions if question.store == store]
            queries = await _embed(embedder, [question.text for question in asked])
            for question, vector in zip(asked, queries, strict=True):
                by_keyword = search.ranked(question.text, DEPTH)
                by_meaning = _best(vectors @ vector, ids, DEPTH)
                scores = reciprocal_ranks([by_meaning, by_keyword])
                keyword[question.question_id] = by_keyword[:depth]
                fused[question.question_id] = sorted(scores, key=lambda turn: -scores[turn])[:depth]
    return keyword, fused


async def _embed(embedder: LocalEmbedder, texts: Sequence[str]) -> NDArray[np.float32]:
    rows = [
        embedding.dense
        for start in range(0, len(texts), BATCH)
        for embedding in await embedder.embed(texts[start : start + BATCH], priority=Priority.BULK)
    ]
    return np.stack(rows)


def _best(scores: NDArray[np.float32], ids: Sequence[str], depth: int, least: float = -np.inf) -> list[str]:
    order = np.argsort(-scores, kind="stable")[:depth]
    return [ids[place] for place in order if scores[place] > least]

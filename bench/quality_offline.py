"""How good the ranking is by itself: exact search in one process, no server and no store.

    python -m bench.quality_offline DIR [DIR …] [--ablate] [--cache FILE] [--json]

Every turn goes through the same analysis, embedding and ranking as in the memory server; the candidates come from
exact search instead of the index: the best 50 by vector, the best 50 by BM25 and their neighbours in the session. What
the real servers reach (bench/quality.py) can therefore be compared with what their formulas can reach. --ablate
switches off one signal after the other. bench/dialogues.py says what a data directory holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.baselines import KeywordSearch, Rankings
from bench.dialogues import Dialogues, Question, Turn, read_dialogues
from bench.metrics import NAMES, TOTAL, averages
from memory_server.core.pooling import pooled, with_token_weights
from memory_server.core.questions import Question as Understood
from memory_server.core.vector_codec import packed, unpacked
from memory_server.domain.bm25 import bm25, idf
from memory_server.domain.fusion import reciprocal_ranks
from memory_server.domain.late_interaction import INT8_SCALE
from memory_server.domain.pool import QueryFeatures
from memory_server.domain.presets import PRESETS, Weights
from memory_server.domain.scoring import rank
from memory_server.ports import PoolRow, StoredVectors, TermStats
from soma_contract.embedders import Embedder, Priority
from soma_contract.embedders.local import LocalEmbedder
from soma_contract.memory import Memory
from soma_contract.text import ActorNames, analyzer, keyword_text, named_date

PER_LEG = 50
BATCH = 64
DEPTH = 100
DIMENSION = 384
_ABLATED = (
    *("keyword", "sentence", "late_interaction", "reach", "answer", "session"),
    *("actor", "date", "question", "first_person", "time"),
)
_ABLATIONS: dict[str, dict[str, Any]] = {f"without {name}": {name: 0.0} for name in _ABLATED} | {
    "without neighbours": {"previous": 0.0, "following": 0.0, "answer": 0.0}
}


class Vectors:
    """Vectors of texts, kept in a file between runs when one is named."""

    def __init__(self, embedder: Embedder, file: Path | None) -> None:
        self._embedder = embedder
        self._kept = sqlite3.connect(file or ":memory:")
        self._kept.execute("CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, packed BLOB)")

    async def of(self, texts: Sequence[str], *, with_tokens: bool = True) -> list[StoredVectors]:
        """Embed texts, in order, with sentences and tokens or without."""
        prefix = f"{self._embedder.profile.key} {with_tokens} "
        found: dict[str, StoredVectors] = {}
        for text in dict.fromkeys(texts):
            row = self._kept.execute("SELECT packed FROM vectors WHERE key = ?", (prefix + text,)).fetchone()
            stored = unpacked(row[0], DIMENSION) if row else None
            if stored is not None:
                found[text] = stored
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            made = await self._embedder.embed(batch, with_tokens=with_tokens, priority=Priority.BULK)
            for text, one in zip(batch, made, strict=True):
                found[text] = StoredVectors(one.dense, one.sentences, one.tokens, one.token_ids)
                self._kept.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (prefix + text, packed(found[text])))
            self._kept.commit()
        return [found[text] for text in texts]


@dataclass
class Store:
    """One conversation, read for exact search."""

    turn_ids: list[str]
    memories: list[Memory]
    vectors: list[StoredVectors]
    counts: list[dict[str, int]]
    plain: NDArray[np.float32]
    """Vectors of "speaker: text", which the yardstick searches."""
    yardstick: KeywordSearch

    def __post_init__(self) -> None:
        self.dense = np.stack([one.dense for one in self.vectors])
        self.lengths = np.array([sum(counts.values()) for counts in self.counts])
        self.frequencies = Counter(term for counts in self.counts for term in counts)
        self.names = ActorNames({memory.actor for memory in self.memories})
        self.places = {(one.session_id, one.sequence): place for place, one in enumerate(self.memories)}

    def stats(self, terms: Sequence[str]) -> TermStats:
        """Return the statistics of the query's terms."""
        frequencies = np.array([self.frequencies[term] for term in terms], np.int64)
        return TermStats(len(self.memories), float(self.lengths.mean()), frequencies)

    def term_counts(self, terms: Sequence[str]) -> NDArray[np.int32]:
        """Return how often each memory holds each term, (n, q)."""
        return np.array([[counts.get(term, 0) for term in terms] for counts in self.counts], np.int32)

    def neighbours(self, places: set[int]) -> set[int]:
        """Return the direct neighbours of places in their sessions."""
        near = set()
        for place in places:
            memory = self.memories[place]
            for step in (-1, 1):
                found = self.places.get((memory.session_id, (memory.sequence or 0) + step))
                if found is not None:
                    near.add(found)
        return near


@dataclass(slots=True)
class Asked:
    """One question with its vectors."""

    question: Question
    understood: Understood
    plain: NDArray[np.float32]


async def read_store(turns: Sequence[Turn], vectors: Vectors) -> Store:
    """Analyse and embed one conversation as the indexer does."""
    names = ActorNames({turn.actor for turn in turns})
    memories = [
        Memory(
            memory_id=f"{place:08d}",
            text=turn.text,
            actor=turn.actor,
            session_id=turn.session,
            sequence=turn.sequence,
            occurred_at=turn.at,
        )
        for place, turn in enumerate(turns)
    ]
    cut = await vectors.of([names.cut(turn.text) for turn in turns])
    plain = await vectors.of([f"{turn.actor}: {turn.text}" for turn in turns], with_tokens=False)
    counts = [analyzer().counts(keyword_text(turn.actor, turn.text, turn.at)) for turn in turns]
    return Store(
        [turn.turn_id for turn in turns],
        memories,
        cut,
        counts,
        np.stack([one.dense for one in plain]),
        KeywordSearch(turns),
    )


async def read_question(question: Question, store: Store, vectors: Vectors) -> Asked:
    """Understand one question as the server does."""
    (cut,) = await vectors.of([store.names.cut(question.text)])
    (plain,) = await vectors.of([question.text], with_tokens=False)
    counts = analyzer().counts(question.text)
    understood = Understood(
        text=question.text,
        terms=tuple(counts),
        term_weights=np.fromiter(counts.values(), np.float64, len(counts)),
        mention=store.names.mentioned(question.text),
        date=named_date(question.text),
        features=QueryFeatures(cut.dense, cut.tokens.astype(np.float32) / np.float32(INT8_SCALE)),
        token_ids=cut.token_ids,
    )
    return Asked(question, understood, plain.dense)


def search(store: Store, asked: Asked, variants: dict[str, Weights]) -> tuple[dict[str, list[str]], float]:
    """Rank a store for one question by every pipeline; returns turns by pipeline, and the ranking's seconds."""
    question = asked.understood
    stats, counts = store.stats(question.terms), store.term_counts(question.terms)
    repeated = idf(stats.rows, stats.frequencies) * question.term_weights
    keyword = bm25(counts.reshape(len(store.memories), -1), store.lengths, repeated, stats.mean_length)
    by_keyword = [place for place in _best(keyword, DEPTH) if keyword[place] > 0]
    turn_ids = store.turn_ids
    plain_keyword = store.yardstick.ranked(question.text, DEPTH)
    plain_dense = [turn_ids[place] for place in _best(store.plain @ asked.plain, DEPTH)]
    fused = reciprocal_ranks([plain_dense, plain_keyword])
    ranked = {
        "BM25": plain_keyword,
        "dense": plain_dense,
        "RRF60": sorted(fused, key=lambda turn: -fused[turn]),
    }
    assert question.features.vector is not None
    proposed = {*_best(store.dense @ question.features.vector, PER_LEG), *by_keyword[:PER_LEG]}
    places = sorted(proposed | store.neighbours(proposed))
    rows = [
        PoolRow(store.memories[place], store.vectors[place], counts[place], int(store.lengths[place]))
        for place in places
    ]
    exact, now = np.zeros(len(rows), np.bool_), datetime.now(UTC)
    features = with_token_weights(question, rows)
    took_s = 0.0
    for name, weights in variants.items():
        pool = pooled(rows, stats, question, weights, dimension=DIMENSION, now=now, exact=exact)
        began = time.perf_counter()
        order = rank(pool, features, weights).order
        took_s += (time.perf_counter() - began) / len(variants)
        ranked[name] = [turn_ids[places[position]] for position in order[:DEPTH]]
    return ranked, took_s


async def measure(data: Dialogues, vectors: Vectors, variants: dict[str, Weights]) -> dict[str, dict[str, float]]:
    """Return the metrics of every pipeline on one data set."""
    rankings: dict[str, Rankings] = {}
    times_s = []
    for name, turns in data.stores.items():
        print(f"{data.name}: {name}, {len(turns)} turns", file=sys.stderr, flush=True)
        store = await read_store(turns, vectors)
        for question in data.questions:
            if question.store == name:
                found, took_s = search(store, await read_question(question, store, vectors), variants)
                times_s.append(took_s)
                for pipeline, ranked in found.items():
                    rankings.setdefault(pipeline, {})[question.question_id] = ranked
    rows = {pipeline: averages(data.questions, each)[TOTAL] for pipeline, each in rankings.items()}
    print(f"{data.name}: ranking p50 {np.median(times_s) * 1000:.2f} ms", file=sys.stderr, flush=True)
    return rows


async def run(options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Measure all data sets."""
    variants = {options.preset: PRESETS[options.preset]}
    if options.ablate:
        variants |= {name: replace(PRESETS[options.preset], **off) for name, off in _ABLATIONS.items()}
    async with LocalEmbedder() as embedder:
        vectors = Vectors(embedder, options.cache)
        return {
            data.name: await measure(data, vectors, variants)
            for data in (read_dialogues(directory, options.stores) for directory in options.data)
        }


def _best(scores: NDArray[np.float32], depth: int) -> list[int]:
    return [int(place) for place in np.argsort(-scores, kind="stable")[:depth]]


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--stores", type=int, help="only the first N stores of each data set")
    parser.add_argument("--preset", default="balanced", choices=list(PRESETS))
    parser.add_argument("--ablate", action="store_true", help="also without each signal")
    parser.add_argument("--cache", type=Path, help="keep vectors in this file between runs")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    report = asyncio.run(run(options))
    if options.json:
        print(json.dumps(report))
        return 0
    for name, rows in report.items():
        print(f"\n{name}")
        for pipeline, values in rows.items():
            print(
                f"{pipeline:<26}{values['n']:>6.0f}" + "".join(f"{metric:>8} {values[metric]:.3f}" for metric in NAMES)
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""From the rows of a pool to its hits: missing vectors, scores, links, a model's opinion, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memory_server.core.candidates import Candidates, Legs
from memory_server.core.embedding import Embedding
from memory_server.core.explaining import explained, signals_of
from memory_server.core.graph_leg import GraphLeg, Reached, graph_signal
from memory_server.core.importance import ImportanceRanks
from memory_server.core.pooling import pooled, with_token_weights
from memory_server.core.questions import Question
from memory_server.core.reranking import Reranker, reranked
from memory_server.core.tenant_policies import Policies
from memory_server.domain.budgets import RecallBudgets
from memory_server.domain.pool import Pool
from memory_server.domain.presets import Weights
from memory_server.domain.scoring import Ranking, RelevanceScorer
from memory_server.ports import Clock, Collection, PoolRow, RecallSource, TermStats
from soma_contract.errors import SomaError
from soma_contract.filters import Filter
from soma_contract.memory import Target
from soma_contract.recall import Hit, Leg, Preset, RecallQuery
from soma_contract.tenant import Tenant
from soma_contract.tokenizer import count_tokens

EMBEDDED_IN_RECALL = 16
"""At most so many memories are embedded inside a recall; what is made here the indexer finds in the cache."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One recall under way: what is asked, where it is searched, and what became of it so far."""

    tenant: Tenant
    query: RecallQuery
    filter: Filter
    collection: Collection
    weights: Weights
    wanted: frozenset[Leg]
    legs: Legs
    budgets: RecallBudgets
    found: Candidates
    started: float

    @property
    def details(self) -> bool:
        """Whether vectors of sentences and tokens are needed."""
        return self.weights.details or self.query.explain


@dataclass(frozen=True, slots=True)
class Ranked:
    """The pool in order, and what links led to."""

    rows: list[PoolRow]
    ranking: Ranking
    reached: Mapping[str, Reached]

    def path_to(self, memory_id: str) -> tuple[str, ...]:
        """The way links led to a memory; empty if none did."""
        reached = self.reached.get(memory_id)
        return () if reached is None else reached.path


@dataclass(frozen=True, slots=True)
class PoolRanking:
    """Ranks what was read."""

    source: RecallSource
    embedding: Embedding
    clock: Clock
    importance: ImportanceRanks
    policies: Policies | None
    graph: GraphLeg | None
    reranker: Reranker | None

    async def ranked(self, asking: Asking, question: Question, rows: list[PoolRow], stats: TermStats) -> Ranked:
        """Rank the pool, with what links lead to and what a model says of the best where that is wanted."""
        tenant, query, filter, weights = asking.tenant, asking.query, asking.filter, asking.weights
        legs, budgets, found = asking.legs, asking.budgets, asking.found
        started = legs.now()
        rows = await self._with_vectors(tenant, rows, question, legs, budgets.embed_s)
        if weights.importance > 0:
            rows = await self.importance.ranked(tenant, rows)
        legs.ran(Leg.EXACT, started, sum(names(question.exact, row, question.text) for row in rows))
        started = legs.now()
        pool, ranking = self._scored(rows, stats, question, weights)
        if "late_interaction" in ranking.signals:
            legs.ran(Leg.LATE_INTERACTION, started, int(pool.tokens.present.sum()))
        elif weights.late_interaction > 0 and question.embedding_failure:
            legs.failed(Leg.LATE_INTERACTION, started, question.embedding_failure)
        reached: Mapping[str, Reached] = {}
        if self.graph is not None and rows and (weights.graph > 0 or Leg.GRAPH in query.legs):

            async def read(ids: Sequence[str]) -> list[PoolRow]:
                fresh, _ = await self.source.pool(
                    tenant,
                    filter,
                    ids,
                    terms=question.terms,
                    profile=self.embedding.profile.key,
                    neighbours=False,
                    details=asking.details,
                )
                return [row for row in fresh if row.memory.memory_id != question.excluded]

            hops = query.graph_hops
            rows, reached = await self.graph.follow(tenant, rows, ranking, hops, read, found, legs, budgets.graph_s)
            if reached:
                _, ranking = self._scored(rows, stats, question, weights, reached)
        if self.reranker is not None and _wants_model(query):
            ranking = await self._judged(self.reranker, question, rows, ranking, legs, budgets.rank_s)
        return Ranked(rows, ranking, reached)

    async def _judged(
        self,
        reranker: Reranker,
        question: Question,
        rows: Sequence[PoolRow],
        ranking: Ranking,
        legs: Legs,
        deadline_s: float,
    ) -> Ranking:
        """Let the model order the best anew; the scores of their places go to whoever takes them."""
        exact = ranking.signals["exact"] > 0
        texts = [row.memory.text for row in rows]
        judged = await reranked(reranker, question.text, ranking.order, exact, texts, legs, deadline_s=deadline_s)
        if judged is None:
            return ranking
        scores = ranking.scores.copy()
        scores[judged.order] = ranking.scores[ranking.order]
        model = np.full(len(rows), np.nan, np.float32)
        model[list(judged.raw)] = list(judged.raw.values())
        signals = {**ranking.signals, "rerank": model}
        return replace(ranking, order=judged.order, scores=scores, signals=signals)

    async def _with_vectors(
        self, tenant: Tenant, rows: list[PoolRow], question: Question, legs: Legs, deadline_s: float
    ) -> list[PoolRow]:
        """Embed the newest rows that the indexer has not come to, so that a fresh memory is judged like any other."""
        if question.features.vector is None:
            return rows
        bare = [position for position, row in enumerate(rows) if row.vectors is None and not row.neighbour]
        if not bare:
            return rows
        started = legs.now()
        bare.sort(key=lambda position: rows[position].memory.memory_id, reverse=True)
        now = bare[:EMBEDDED_IN_RECALL]
        try:
            made = await self.embedding.of_memories(
                tenant, [rows[position].memory for position in now], deadline_s=deadline_s
            )
        except SomaError as error:
            legs.failed(Leg.OVERLAY, started, f"{error.reason}:embedder", candidates=len(bare))
            return rows
        rows = list(rows)
        for position, vectors in zip(now, made, strict=True):
            rows[position] = replace(rows[position], vectors=vectors)
        if len(bare) > len(now):
            legs.failed(Leg.OVERLAY, started, "OVERLAY_UNEMBEDDED", candidates=len(bare))
        return rows

    def _scored(
        self,
        rows: Sequence[PoolRow],
        stats: TermStats,
        question: Question,
        weights: Weights,
        reached: Mapping[str, Reached] | None = None,
    ) -> tuple[Pool, Ranking]:
        """Rank rows; with what links lead to, that is a signal too."""
        pool = pooled(
            rows,
            stats,
            question,
            weights,
            dimension=self.embedding.profile.dimension,
            now=self.clock.now(),
            exact=np.array([names(question.exact, row, question.text) for row in rows], np.bool_),
        )
        if reached:
            pool.options["graph"] = graph_signal(rows, reached)
        scorer = RelevanceScorer() if self.policies is None else self.policies.scorer(weights)
        ranking = scorer.rank(pool, with_token_weights(question, rows), weights)
        if reached:
            ranking = replace(ranking, signals={**ranking.signals, "graph": pool.options["graph"]})
        return pool, ranking


def hits_of(asking: Asking, question: Question, ranked: Ranked) -> tuple[Hit, ...]:
    """The best of the pool within the query's limits."""
    query, found, weights = asking.query, asking.found, asking.weights
    rows, ranking = ranked.rows, ranked.ranking
    hits: list[Hit] = []
    spent = 0
    for position in ranking.order.tolist():
        if len(hits) >= query.limit:
            break
        is_exact = bool(ranking.signals["exact"][position])
        if query.min_score is not None and ranking.cosines[position] < query.min_score and not is_exact:
            continue
        row = rows[position]
        tokens = 0
        if query.token_budget:
            tokens = count_tokens(row.memory.text)
            if spent + tokens > query.token_budget:
                continue
            spent += tokens
        hits.append(
            Hit(
                memory=row.memory,
                score=float(ranking.scores[position]),
                signals=signals_of(ranking, position),
                path=ranked.path_to(row.memory.memory_id),
                tokens=tokens,
                explanation=(explained(ranking, position, row, question, found, weights) if query.explain else None),
            )
        )
    return tuple(hits)


def _wants_model(query: RecallQuery) -> bool:
    return Leg.RERANK in query.legs if query.legs else query.preset is not Preset.FAST


def names(target: Target | None, row: PoolRow, text: str) -> bool:
    """Whether the query names this row outright: by id, key, coordinate or verbatim text."""
    memory = row.memory
    if text and memory.text == text:
        return True
    if target is None:
        return False
    if target.memory_id:
        return memory.memory_id == target.memory_id
    if target.key:
        return memory.key == target.key and memory.namespace == target.namespace
    return memory.coordinate == target.coordinate and memory.namespace == target.namespace

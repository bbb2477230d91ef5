"""The verb *recall*: plan, candidates, one read of the truth, ranking, hits and a summary that hides nothing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from memory_server.core.candidates import Candidates, CandidateSearch, Legs
from memory_server.core.embedding import Embedding
from memory_server.core.explaining import explained, signals_of
from memory_server.core.graph_leg import GraphLeg, Reached, graph_signal
from memory_server.core.importance import ImportanceRanks
from memory_server.core.pooling import pooled, with_token_weights
from memory_server.core.questions import Question, Questions
from memory_server.core.reading import with_embeddings
from memory_server.core.reranking import Reranker, reranked
from memory_server.core.tenant_policies import Policies, Policy
from memory_server.domain.budgets import RecallBudgets, split_deadline
from memory_server.domain.pool import Pool
from memory_server.domain.presets import PRESETS, Weights
from memory_server.domain.scoring import Ranking, RelevanceScorer
from memory_server.ports import Clock, Collection, IndexQueue, Journal, Overlay, PoolRow, RecallSource, TermStats
from soma_contract.errors import (
    BudgetSpentError,
    ComponentUnavailableError,
    EmbeddingProfileMismatchError,
    SomaError,
)
from soma_contract.filters import (
    AllOf,
    Filter,
    NumberField,
    NumberRange,
    reads_payload,
    with_default_namespace,
)
from soma_contract.memory import Target, View
from soma_contract.recall import Hit, Leg, Preset, Recalled, RecallQuery, Summary
from soma_contract.tenant import Tenant
from soma_contract.tokenizer import count_tokens

POOL_PER_LEG = 50
"""Candidates of each leg, and twice the limit where that is more."""
FAST_POOL_PER_LEG = 20
DEFAULT_DEADLINE_S = 30.0
EMBEDDED_IN_RECALL = 16
"""At most so many memories are embedded inside a recall; what is made here the indexer finds in the cache."""
_SEARCH_LEGS = (Leg.EXACT, Leg.DENSE, Leg.KEYWORD, Leg.OVERLAY, Leg.LATE_INTERACTION)
_FRESH_S = 1.0
_OVERLAP_S = 2.0
"""The overlay keeps what the index took in within the last ten seconds; one that was read later than this leaves too
little of them, and the index is searched again."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The pool in order, as of a revision, and what links led to."""

    rows: list[PoolRow]
    ranking: Ranking
    revision: int
    reached: Mapping[str, Reached]

    def path_to(self, memory_id: str) -> tuple[str, ...]:
        """The way links led to a memory; empty if none did."""
        reached = self.reached.get(memory_id)
        return () if reached is None else reached.path


@dataclass(frozen=True, slots=True)
class _Asking:
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


@dataclass(slots=True)
class Recalling:
    """Finds memories; the index proposes, the truth disposes."""

    journal: Journal
    source: RecallSource
    queue: IndexQueue
    search: CandidateSearch
    questions: Questions
    embedding: Embedding
    clock: Clock
    policies: Policies | None = None
    """What tenants set about their recalls; none, and all are scored alike."""
    graph: GraphLeg | None = None
    reranker: Reranker | None = None
    others: Sequence[Recalling] = ()
    """For tenants that are on another embedding profile, until they are moved."""
    on_summary: Callable[[Summary], None] = lambda summary: None
    """Called at the end of each recall, for metrics."""
    _collections: OrderedDict[Tenant, tuple[float, Collection]] = field(default_factory=OrderedDict)
    _importance: ImportanceRanks = field(init=False)
    _many_open: OrderedDict[Tenant, float] = field(default_factory=OrderedDict)
    """When a tenant last had more rows that the index may not hold than come along with a pool."""

    def __post_init__(self) -> None:
        self._importance = ImportanceRanks(self.source, self.clock)

    async def recall(
        self, tenant: Tenant, query: RecallQuery, *, namespace: str, deadline_s: float | None = None
    ) -> Recalled:
        """Return the best memories for a query, best first, and what was searched.

        Raises DimensionMismatchError, MemoryNotFoundError (like), ComponentUnavailableError or
        BudgetSpentError when nothing could be searched, or a leg was lost and ``allow_degraded`` is off.
        """
        try:
            collection = await self._collection(tenant)
        except EmbeddingProfileMismatchError:
            for other in self.others:
                with suppress(EmbeddingProfileMismatchError):
                    return await other.recall(tenant, query, namespace=namespace, deadline_s=deadline_s)
            raise
        started = self.clock.monotonic()
        budgets = split_deadline(DEFAULT_DEADLINE_S if deadline_s is None else deadline_s)
        legs = Legs(self.clock.monotonic)
        wanted = query.legs or frozenset(_SEARCH_LEGS)
        policy = Policy() if self.policies is None else await self.policies.of(tenant)
        weights = weights_of(query, wanted, policy)
        filter = with_default_namespace(query.filter, namespace)
        if query.min_relevance is not None:
            filter = AllOf((filter, NumberRange(NumberField.RELEVANCE, low=query.min_relevance)))
        question = await self.questions.understood(tenant, query, filter)
        asking = _Asking(tenant, query, filter, collection, weights, wanted, legs, budgets, Candidates(), started)
        # The newest rows come along with the pool, unless there were many of them a moment ago.
        along = self._many_open.get(tenant, -_FRESH_S) + _FRESH_S <= started
        with _first_error():
            async with asyncio.TaskGroup() as group:
                reading = None if along else group.create_task(self._overlay(asking, question))
                if wanted & {Leg.DENSE, Leg.LATE_INTERACTION} or query.embedding is not None:
                    question = await self.questions.embedded(
                        tenant, query, question, filter, budgets.embed_s, with_tokens=weights.late_interaction > 0
                    )
                await self._search(asking, question)
        if reading is not None:
            await self._add_overlay(asking, question, reading.result())
        elif along and self.clock.monotonic() - started > _OVERLAP_S:
            along = False
            await self._add_overlay(asking, question, await self._overlay(asking, question))
        rows, stats = await self._pool(asking, question, along=along)
        if stats.open is not None and stats.open.more:
            self._note_many_open(tenant)
            await self._add_overlay(asking, question, await self._overlay(asking, question))
            rows, stats = await self._pool(asking, question, along=False)
        elif stats.open is not None:
            found = asking.found
            found.pending_rows = stats.open.pending_rows
            found.add(Leg.OVERLAY, list(stats.open.ids))
            legs.ran(Leg.OVERLAY, started, len(stats.open.ids))
        found = asking.found
        ranked = await self._ranked(asking, question, rows, stats)
        if not legs.any_ran and Leg.EXACT not in wanted:
            raise self._nothing_ran(legs)
        for leg in Leg:
            legs.skipped(leg)
        hits = self._hits(query, question, ranked, found, weights)
        if query.view is View.FULL:
            hits = await with_embeddings(self.journal, tenant, hits)
        gone = await self._gone(tenant, query.recheck_ids)
        summary = Summary(
            legs=tuple(legs.reports.values()),
            pending_rows=found.pending_rows,
            considered=len(ranked.rows),
            revision=ranked.revision,
            gone_ids=gone,
            tokens=sum(hit.tokens for hit in hits),
            duration_s=self.clock.monotonic() - started,
        )
        self.on_summary(summary)
        if summary.degraded and not query.allow_degraded:
            raise self._nothing_ran(legs)
        return Recalled(hits, summary)

    async def _overlay(self, asking: _Asking, question: Question) -> tuple[Overlay, float]:
        """Read what the index does not hold; with the moment when it was read."""
        overlay = await self.search.overlay(asking.tenant, asking.filter, question, asking.collection, asking.legs)
        return overlay, self.clock.monotonic()

    async def _search(self, asking: _Asking, question: Question) -> None:
        query = asking.query
        per_leg = FAST_POOL_PER_LEG if query.preset is Preset.FAST else POOL_PER_LEG
        await self.search.search(
            asking.tenant,
            asking.filter,
            question,
            asking.collection,
            asking.legs,
            asking.found,
            wanted=asking.wanted,
            limit=max(per_leg, 2 * query.limit),
            exact_filter=not reads_payload(asking.filter),
            deadline_s=asking.budgets.index_s,
        )

    async def _pool(self, asking: _Asking, question: Question, *, along: bool) -> tuple[list[PoolRow], TermStats]:
        """Re-read the candidates in the truth; fill up where the index left out matches."""
        rows, stats = await self._read(asking, question, asking.found.ids, along=along)
        if len(rows) < asking.query.limit and not (stats.open is not None and stats.open.more):
            more = await self.journal.matching_ids(asking.tenant, asking.filter, asking.query.limit + 1)
            missing = [memory_id for memory_id in more if memory_id not in {row.memory.memory_id for row in rows}]
            if missing:
                rows, stats = await self._read(asking, question, [*asking.found.ids, *missing], along=along)
        return [row for row in rows if row.memory.memory_id != question.excluded], stats

    async def _read(
        self, asking: _Asking, question: Question, ids: Sequence[str], *, along: bool
    ) -> tuple[list[PoolRow], TermStats]:
        return await self.source.pool(
            asking.tenant,
            asking.filter,
            ids,
            terms=question.terms,
            profile=self.embedding.profile.key,
            neighbours=asking.weights.conversation,
            details=asking.details,
            exact=question.exact,
            exact_text=question.text,
            epoch=asking.collection.epoch if along else None,
        )

    async def _ranked(self, asking: _Asking, question: Question, rows: list[PoolRow], stats: TermStats) -> _Ranked:
        """Rank the pool, with what links lead to and what a model says of the best where that is wanted."""
        tenant, query, filter, weights = asking.tenant, asking.query, asking.filter, asking.weights
        legs, budgets, found = asking.legs, asking.budgets, asking.found
        started = legs.now()
        rows = await self._with_vectors(tenant, rows, question, legs, budgets.embed_s)
        if weights.importance > 0:
            rows = await self._importance.ranked(tenant, rows)
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
        if self.reranker is not None and self._wants_model(query):
            ranking = await self._judged(self.reranker, question, rows, ranking, legs, budgets.rank_s)
        revision = stats.revision if stats.revision is not None else await self.journal.revision(tenant)
        return _Ranked(rows, ranking, revision, reached)

    def _wants_model(self, query: RecallQuery) -> bool:
        return Leg.RERANK in query.legs if query.legs else query.preset is not Preset.FAST

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

    async def _add_overlay(self, asking: _Asking, question: Question, read: tuple[Overlay, float]) -> None:
        """Add what the overlay proposes; one read too long after the search began asks the index again."""
        overlay, read_at = read
        if read_at - asking.started > _OVERLAP_S:
            await self._search(asking, question)
        found, legs = asking.found, asking.legs
        found.pending_rows = overlay.pending_rows
        proposed = list(overlay.keyword_ids)
        vector = question.features.vector
        if vector is not None and len(overlay.vector_ids):
            best = np.argsort(-(overlay.vectors @ vector), kind="stable")[:POOL_PER_LEG]
            proposed += [overlay.vector_ids[position] for position in best]
        proposed += [memory.memory_id for memory in overlay.unembedded]
        found.add(Leg.OVERLAY, proposed)
        if overlay.truncated:
            legs.failed(Leg.OVERLAY, asking.started, "OVERLAY_TRUNCATED", candidates=len(proposed))
        else:
            legs.ran(Leg.OVERLAY, asking.started, len(proposed))

    def _note_many_open(self, tenant: Tenant) -> None:
        self._many_open[tenant] = self.clock.monotonic()
        self._many_open.move_to_end(tenant)
        while len(self._many_open) > 10_000:
            self._many_open.popitem(last=False)

    def _hits(
        self,
        query: RecallQuery,
        question: Question,
        ranked: _Ranked,
        found: Candidates,
        weights: Weights,
    ) -> tuple[Hit, ...]:
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
                    explanation=(
                        explained(ranking, position, row, question, found, weights) if query.explain else None
                    ),
                )
            )
        return tuple(hits)

    async def _gone(self, tenant: Tenant, ids: Sequence[str]) -> tuple[str, ...]:
        if not ids:
            return ()
        live = await self.journal.get(tenant, [Target(memory_id=memory_id) for memory_id in ids])
        return tuple(memory_id for memory_id, memory in zip(ids, live, strict=True) if memory is None)

    async def _collection(self, tenant: Tenant) -> Collection:
        kept = self._collections.get(tenant)
        if kept is not None and self.clock.monotonic() - kept[0] < _FRESH_S:
            return kept[1]
        profile = self.embedding.profile
        collection = await self.queue.active_collection(tenant, profile.key, profile.dimension)
        self._collections[tenant] = (self.clock.monotonic(), collection)
        self._collections.move_to_end(tenant)
        while len(self._collections) > 10_000:
            self._collections.popitem(last=False)
        return collection

    def forget_collections(self) -> None:
        """Look up collections anew; called when one was lost or switched."""
        self._collections.clear()
        for other in self.others:
            other.forget_collections()

    def _nothing_ran(self, legs: Legs) -> SomaError:
        causes = [report.cause for report in legs.reports.values() if report.cause]
        if causes and all(cause.startswith("BUDGET_SPENT") for cause in causes):
            return BudgetSpentError(stage="index")
        component = causes[0].partition(":")[2] if causes else "index"
        return ComponentUnavailableError(component=component or "index", retry_after_s=1.0)


def weights_of(query: RecallQuery, wanted: frozenset[Leg], policy: Policy) -> Weights:
    """The preset's weights, as the tenant wants them, with the options a query sets itself."""
    options = {
        name: value
        for name in ("recency", "importance", "graph", "diversity", "confidence")
        if (value := getattr(query.ranking, name)) is not None
    }
    weights = replace(policy.of(PRESETS[query.preset.value]), **options)
    if Leg.LATE_INTERACTION not in wanted:
        weights = replace(weights, late_interaction=0.0)
    return weights


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


@contextmanager
def _first_error() -> Iterator[None]:
    """Let the first error of a task group leave as itself, so that it keeps its code."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

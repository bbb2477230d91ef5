"""The verb *recall*: plan, candidates, one read of the truth, ranking, hits and a summary that hides nothing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from memory_server.core.candidates import Candidates, CandidateSearch, Legs
from memory_server.core.embedding import Embedding
from memory_server.core.graph_leg import GraphLeg
from memory_server.core.importance import ImportanceRanks
from memory_server.core.questions import Question, Questions
from memory_server.core.ranking import Asking, PoolRanking, hits_of
from memory_server.core.reading import with_embeddings
from memory_server.core.reranking import Reranker
from memory_server.core.tenant_policies import Policies, Policy
from memory_server.domain.budgets import split_deadline
from memory_server.domain.presets import PRESETS, Weights
from memory_server.ports import Clock, Collection, IndexQueue, Journal, Overlay, PoolRow, RecallSource, TermStats
from soma_contract.errors import (
    BudgetSpentError,
    ComponentUnavailableError,
    EmbeddingProfileMismatchError,
    SomaError,
)
from soma_contract.filters import (
    AllOf,
    NumberField,
    NumberRange,
    reads_payload,
    with_default_namespace,
)
from soma_contract.memory import Target, View
from soma_contract.recall import Leg, Preset, Recalled, RecallQuery, Summary
from soma_contract.tenant import Tenant

POOL_PER_LEG = 50
"""Candidates of each leg, and twice the limit where that is more."""
FAST_POOL_PER_LEG = 20
DEFAULT_DEADLINE_S = 30.0
_SEARCH_LEGS = (Leg.EXACT, Leg.DENSE, Leg.KEYWORD, Leg.OVERLAY, Leg.LATE_INTERACTION)
_FRESH_S = 1.0
_OVERLAP_S = 2.0
"""The overlay keeps what the index took in within the last ten seconds; one that was read later than this leaves too
little of them, and the index is searched again."""


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
    _ranking: PoolRanking = field(init=False)
    _many_open: OrderedDict[Tenant, float] = field(default_factory=OrderedDict)
    """When a tenant last had more rows that the index may not hold than come along with a pool."""

    def __post_init__(self) -> None:
        importance = ImportanceRanks(self.source, self.clock)
        self._ranking = PoolRanking(
            self.source, self.embedding, self.clock, importance, self.policies, self.graph, self.reranker
        )

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
        asking = Asking(tenant, query, filter, collection, weights, wanted, legs, budgets, Candidates(), started)
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
        ranked = await self._ranking.ranked(asking, question, rows, stats)
        if not legs.any_ran and Leg.EXACT not in wanted:
            raise self._nothing_ran(legs)
        for leg in Leg:
            legs.skipped(leg)
        hits = hits_of(asking, question, ranked)
        if query.view is View.FULL:
            hits = await with_embeddings(self.journal, tenant, hits)
        gone = await self._gone(tenant, query.recheck_ids)
        summary = Summary(
            legs=tuple(legs.reports.values()),
            pending_rows=found.pending_rows,
            considered=len(ranked.rows),
            revision=stats.revision if stats.revision is not None else await self.journal.revision(tenant),
            gone_ids=gone,
            tokens=sum(hit.tokens for hit in hits),
            duration_s=self.clock.monotonic() - started,
        )
        self.on_summary(summary)
        if summary.degraded and not query.allow_degraded:
            raise self._nothing_ran(legs)
        return Recalled(hits, summary)

    async def _overlay(self, asking: Asking, question: Question) -> tuple[Overlay, float]:
        """Read what the index does not hold; with the moment when it was read."""
        overlay = await self.search.overlay(asking.tenant, asking.filter, question, asking.collection, asking.legs)
        return overlay, self.clock.monotonic()

    async def _search(self, asking: Asking, question: Question) -> None:
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

    async def _pool(self, asking: Asking, question: Question, *, along: bool) -> tuple[list[PoolRow], TermStats]:
        """Re-read the candidates in the truth; fill up where the index left out matches."""
        rows, stats = await self._read(asking, question, asking.found.ids, along=along)
        if len(rows) < asking.query.limit and not (stats.open is not None and stats.open.more):
            more = await self.journal.matching_ids(asking.tenant, asking.filter, asking.query.limit + 1)
            missing = [memory_id for memory_id in more if memory_id not in {row.memory.memory_id for row in rows}]
            if missing:
                rows, stats = await self._read(asking, question, [*asking.found.ids, *missing], along=along)
        return [row for row in rows if row.memory.memory_id != question.excluded], stats

    async def _read(
        self, asking: Asking, question: Question, ids: Sequence[str], *, along: bool
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

    async def _add_overlay(self, asking: Asking, question: Question, read: tuple[Overlay, float]) -> None:
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

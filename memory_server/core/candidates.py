"""Finding candidates: index and overlay, with every leg's fate noted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from memory_server.core.embedding import Embedding
from memory_server.core.questions import Question
from memory_server.ports import (
    Collection,
    CollectionLostError,
    IndexQueue,
    IndexSearch,
    Journal,
    Overlay,
    RecallSource,
    VectorIndex,
)
from soma_contract.errors import SomaError
from soma_contract.filters import Filter
from soma_contract.recall import Leg, LegReport, LegState
from soma_contract.tenant import Tenant

SELECTIVE_ROWS = 2_000
"""Up to so many matches a filter that the index cannot check is settled by id lists."""


@dataclass(slots=True)
class Legs:
    """What became of each leg so far."""

    now: Callable[[], float]
    reports: dict[Leg, LegReport] = field(default_factory=dict)

    def ran(self, leg: Leg, started: float, candidates: int) -> None:
        """Note a leg that ran in full."""
        self.reports[leg] = LegReport(leg, LegState.RAN, self.now() - started, candidates=candidates)

    def failed(self, leg: Leg, started: float, cause: str, *, candidates: int = 0, late: bool = False) -> None:
        """Note a leg that was dropped for being late, or degraded."""
        state = LegState.DROPPED if late else LegState.DEGRADED
        self.reports[leg] = LegReport(leg, state, self.now() - started, cause, candidates)

    def skipped(self, leg: Leg) -> None:
        """Note a leg that had nothing to do."""
        self.reports.setdefault(leg, LegReport(leg, LegState.SKIPPED))

    @property
    def any_ran(self) -> bool:
        """Whether anything was searched at all."""
        return any(
            report.state is LegState.RAN or report.candidates
            for leg, report in self.reports.items()
            if leg in (Leg.DENSE, Leg.KEYWORD, Leg.OVERLAY)
        )


@dataclass(slots=True)
class Candidates:
    """Ids the legs proposed, with the rank each leg gave them."""

    ranks: dict[Leg, dict[str, int]] = field(default_factory=dict)
    pending_rows: int = 0

    def add(self, leg: Leg, ids: list[str]) -> None:
        """Add a leg's proposals, best first."""
        ranks = self.ranks.setdefault(leg, {})
        for memory_id in ids:
            ranks.setdefault(memory_id, len(ranks) + 1)

    @property
    def ids(self) -> list[str]:
        """All proposals, each once."""
        return list(dict.fromkeys(memory_id for ranks in self.ranks.values() for memory_id in ranks))


@dataclass(frozen=True, slots=True)
class CandidateSearch:
    """Searches the overlay and the index, side by side.

    A row that the index took in after its search began is still in the overlay, which keeps each for some seconds.
    """

    journal: Journal
    source: RecallSource
    queue: IndexQueue
    index: VectorIndex
    embedding: Embedding
    on_lost: Callable[[Collection], Awaitable[None]]

    async def overlay(
        self, tenant: Tenant, filter: Filter, question: Question, collection: Collection, legs: Legs
    ) -> Overlay:
        """Read what the index does not hold; a truth that does not answer is an error."""
        started = legs.now()
        try:
            return await self.source.overlay(
                tenant, filter, terms=question.terms, epoch=collection.epoch, profile=self.embedding.profile.key
            )
        except SomaError as error:
            legs.failed(Leg.OVERLAY, started, error.reason)
            raise

    async def search(
        self,
        tenant: Tenant,
        filter: Filter,
        question: Question,
        collection: Collection,
        legs: Legs,
        found: Candidates,
        *,
        wanted: frozenset[Leg],
        limit: int,
        exact_filter: bool,
        deadline_s: float,
    ) -> None:
        """Search the index's legs and add their proposals; a leg that fails falls back to Postgres."""
        started = legs.now()
        dense = question.features.vector if Leg.DENSE in wanted else None
        keyword = " ".join(question.text.split()) if Leg.KEYWORD in wanted and question.terms else None
        ids = None
        if not exact_filter:
            ids = await self.journal.matching_ids(tenant, filter, SELECTIVE_ROWS + 1)
            if len(ids) > SELECTIVE_ROWS:
                ids, limit = None, limit * 5
        answer = IndexSearch(None, None)
        failures: dict[Leg, tuple[str, bool]] = {}
        if dense is not None or keyword is not None:
            try:
                async with asyncio.timeout(deadline_s):
                    answer = await self.index.search(
                        tenant,
                        collection,
                        filter,
                        dense=dense,
                        keyword_text=keyword,
                        ids=ids,
                        limit=limit,
                        deadline_s=deadline_s,
                    )
            except CollectionLostError:
                # To bring it back is not this recall's business: if that fails or takes long, the next one begins it.
                with suppress(SomaError, CollectionLostError, TimeoutError):
                    async with asyncio.timeout(max(0.0, deadline_s - (legs.now() - started))):
                        await self.on_lost(collection)
                failures = dict.fromkeys((Leg.DENSE, Leg.KEYWORD), ("INDEX_REBUILDING:milvus", False))
            except TimeoutError:
                failures = dict.fromkeys((Leg.DENSE, Leg.KEYWORD), ("BUDGET_SPENT:index", True))
            except SomaError as error:
                failures = dict.fromkeys((Leg.DENSE, Leg.KEYWORD), (f"{error.reason}:milvus", False))
        for leg, hits, asked in ((Leg.DENSE, answer.dense, dense), (Leg.KEYWORD, answer.keyword, keyword)):
            if asked is None:
                continue
            if hits is not None:
                found.add(leg, [hit.memory_id for hit in hits])
                legs.ran(leg, started, len(hits))
                continue
            cause, late = failures.get(leg, ("COMPONENT_UNAVAILABLE:milvus", False))
            await self._from_truth(tenant, filter, question, legs, found, leg, started, cause, limit, late=late)
        if question.embedding_failure and Leg.DENSE in wanted and dense is None:
            legs.failed(Leg.DENSE, started, question.embedding_failure)

    async def _from_truth(
        self,
        tenant: Tenant,
        filter: Filter,
        question: Question,
        legs: Legs,
        found: Candidates,
        leg: Leg,
        started: float,
        cause: str,
        limit: int,
        *,
        late: bool,
    ) -> None:
        """Answer a leg from Postgres instead of the index, and say so."""
        proposed: list[str] = []
        if leg is Leg.KEYWORD:
            scored = await self.source.keyword_search(tenant, filter, terms=question.terms, limit=limit)
            proposed = [memory_id for memory_id, _ in scored]
        elif question.features.vector is not None:
            ids, vectors = await self.source.vector_scan(
                tenant, filter, profile=self.embedding.profile.key, limit=SELECTIVE_ROWS
            )
            if ids:
                order = np.argsort(-(vectors @ question.features.vector), kind="stable")[:limit]
                proposed = [ids[position] for position in order.tolist()]
        found.add(leg, proposed)
        legs.failed(leg, started, cause, candidates=len(proposed), late=late and not proposed)

"""What the brain itself adds to a recall: items of working memory, and writes the memory server does not have yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from brain_server.core.pending_now import PendingNow
from brain_server.core.vectors import Array, TextVectors
from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.item import Item
from brain_server.domain.merging import likeness
from brain_server.domain.pending import applied
from brain_server.ports import Clock
from soma_contract.errors import DimensionMismatchError, SomaError
from soma_contract.filters import EVERYTHING, AllOf, Filter, LabelField, LabelIn
from soma_contract.filters import matches as filter_matches
from soma_contract.memory import Kind, Memory, Vector
from soma_contract.recall import Leg, LegReport, LegState, RecallQuery, Signals, Source
from soma_contract.tenant import Tenant
from soma_contract.text.analysis import analyzer
from soma_contract.text.keywords import keyword_text

MOST_EMBEDDED = 16
"""Of them those that a recall embeds, if the memory server does not hurry to get them."""
WAITING = timedelta(seconds=1)
"""After which a pending write is not just on its way."""


@dataclass(frozen=True, slots=True)
class OwnHit:
    """A memory that the brain found by itself; None is a signal that could not be computed."""

    memory: Memory
    source: Source
    cosine: float | None = None
    share: float | None = None
    """Share of the query's terms it holds."""
    salience: float | None = None
    exact: bool = False
    item_id: str = ""
    """The item of working memory it is."""

    @property
    def likeness(self) -> float:
        """How like the query it is."""
        return likeness(self.cosine, self.share)

    @property
    def signals(self) -> Signals:
        """What made up its score."""
        return Signals(dense=self.cosine, keyword=self.share, working=self.salience, exact=1.0 if self.exact else None)


@dataclass(frozen=True, slots=True)
class OwnHits:
    """What one leg found."""

    hits: list[OwnHit]
    report: LegReport


@dataclass(frozen=True, slots=True)
class Question:
    """A query as the brain's own legs ask it: its vector, or why there is none."""

    text: str
    terms: frozenset[str]
    vector: Array | None = None
    failure: str = ""

    @classmethod
    async def of(
        cls, query: RecallQuery, vectors: TextVectors, *, embedded: bool, deadline_s: float | None
    ) -> Question:
        """Read a query whose vectors fit; ``embedded`` asks for that of its text."""
        terms = frozenset(analyzer().terms(query.text))
        given = query.embedding or query.text_embedding
        if given is not None:
            return cls(query.text, terms, given.array)
        if not embedded or not query.text:
            return cls(query.text, terms)
        try:
            (vector,) = await vectors.of([query.text], deadline_s=deadline_s)
        except SomaError as error:
            return cls(query.text, terms, failure=f"{error.reason}:embedder")
        return cls(query.text, terms, vector)

    def share(self, memory: Memory) -> float | None:
        """Return the share of the query's terms that a memory holds, None for a query without any."""
        if not self.terms:
            return None
        held = analyzer().terms(keyword_text(memory.actor, memory.text, memory.occurred_at))
        return len(self.terms.intersection(held)) / len(self.terms)

    def cosine(self, vector: Vector | None) -> float | None:
        """Return the cosine of a memory's vector, None if either is not known."""
        if vector is None or self.vector is None or vector.dimension != len(self.vector):
            return None
        other = vector.array
        return float(np.dot(other, self.vector) / (np.linalg.norm(other) * np.linalg.norm(self.vector)))

    def names(self, memory: Memory) -> bool:
        """Whether the query is a memory's very text, key or id."""
        text = self.text.strip() if self.text else ""
        return bool(text) and text in (memory.text, memory.key, memory.memory_id)


@dataclass(frozen=True, slots=True)
class WorkingLeg:
    """Searches the items of a session."""

    working: WorkingMemory
    clock: Clock

    async def search(
        self, tenant: Tenant, session_id: str, query: RecallQuery, question: Question, namespace: str
    ) -> OwnHits:
        """Return the items that may answer, best first; an item is a memory of the namespace it would go to."""
        started = self.clock.monotonic()
        namespaces_only = is_about_namespaces_only(query.filter)
        everything = namespaces_only and query.min_score is None
        rules = self.working.rules(tenant)
        limit = query.limit if everything else rules.capacity
        try:
            recalled = await self.working.recall(tenant, session_id, question.vector, question.text, limit, use=False)
        except DimensionMismatchError as error:
            # Items of another embedding profile, from before it was changed: their words can still be compared.
            question = replace(question, vector=None, failure=f"{error.reason}:working")
            recalled = await self.working.recall(tenant, session_id, None, question.text, limit, use=False)
        become = Memory(
            namespace=namespace,
            kind=Kind(rules.promotion_kind),
            persona_id=await self.working.persona(tenant, session_id) if recalled else "",
            session_id=session_id,
        )
        # They differ in nothing that such a filter asks after.
        if namespaces_only and not filter_matches(query.filter, become):
            recalled = []
        hits = [
            OwnHit(
                memory,
                Source.WORKING,
                found.cosine if question.vector is not None else None,
                found.keyword if question.terms else None,
                found.item.salience,
                question.names(memory),
                found.item.item_id,
            )
            for found in recalled
            for memory in (memory_of(found.item, become),)
            if namespaces_only or filter_matches(query.filter, memory)
        ]
        took_s = self.clock.monotonic() - started
        state = LegState.DEGRADED if question.failure else LegState.RAN
        return OwnHits(hits, LegReport(Leg.WORKING, state, took_s, question.failure, len(recalled)))


@dataclass(frozen=True, slots=True)
class PendingLeg:
    """Searches the writes that the memory server does not have yet."""

    pending: PendingNow
    vectors: TextVectors
    clock: Clock

    async def search(self, query: RecallQuery, question: Question, deadline_s: float | None) -> OwnHits:
        """Return pending memories that match the filter and share a term or are alike."""
        started = self.clock.monotonic()
        memories = self._memories(query.filter)
        known = await self._vectors(memories, question, deadline_s)
        hits = []
        for memory, _ in memories:
            cosine = question.cosine(memory.embedding or known.get(memory.memory_id))
            share = question.share(memory)
            exact = question.names(memory)
            if exact or share or (cosine or 0.0) > 0.0:
                hits.append(OwnHit(memory, Source.PENDING, cosine, share, exact=exact))
        took_s = self.clock.monotonic() - started
        cut = self.pending.truncated
        state, cause = (LegState.DEGRADED, "PENDING_TRUNCATED") if cut else (LegState.RAN, "")
        return OwnHits(hits, LegReport(Leg.PENDING, state, took_s, cause, len(memories)))

    def _memories(self, filter: Filter) -> list[tuple[Memory, datetime]]:
        now = self.clock.now()
        return [
            (memory, commands[-1][1])
            for commands in self.pending.chains.values()
            if (memory := applied(None, commands)) is not None and may_answer(memory, filter, now)
        ]

    async def _vectors(
        self, memories: Sequence[tuple[Memory, datetime]], question: Question, deadline_s: float | None
    ) -> dict[str, Vector]:
        """Embed the newest of those that have waited; what is delivered in a moment is not worth it."""
        if question.vector is None or not question.text:
            return {}
        since = self.clock.now() - WAITING
        wanted = [memory for memory, at in memories if at < since and memory.embedding is None][-MOST_EMBEDDED:]
        try:
            made = await self.vectors.of([memory.text for memory in wanted], deadline_s=deadline_s)
        except SomaError:
            return {}
        return {memory.memory_id: Vector.of(vector) for memory, vector in zip(wanted, made, strict=True)}


def memory_of(item: Item, become: Memory) -> Memory:
    """Return an item as the memory it would become, of which all but what the item says is given."""
    return replace(
        become,
        memory_id=item.long_term_id or item.item_id,
        text=item.text,
        payload_json=item.payload_json,
        actor=item.actor,
        sequence=item.sequence or None,
        occurred_at=datetime.fromtimestamp(item.occurred_s or item.admitted_s, UTC),
        created_at=datetime.fromtimestamp(item.admitted_s, UTC),
    )


def may_answer(memory: Memory, filter: Filter, now: datetime) -> bool:
    """Whether a memory matches and has not expired."""
    return (memory.expires_at is None or memory.expires_at > now) and filter_matches(filter, memory)


def is_about_namespaces_only(filter: Filter) -> bool:
    """Whether a filter selects whole namespaces."""
    match filter:
        case LabelIn(LabelField.NAMESPACE, _):
            return True
        case AllOf(operands):
            return filter == EVERYTHING or all(is_about_namespaces_only(operand) for operand in operands)
        case _:
            return False

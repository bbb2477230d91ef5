"""The verb *recall* on the brain: working memory, pending writes and long-term memory, ranked together.

Long-term memory is asked while the brain searches what it holds itself.  When it is away or late the rest answers
alone, and says so; an answer without a hit is then an error, because "nothing found" would be a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from brain_server.core.own_hits import WAITING, OwnHit, OwnHits, PendingLeg, Question, WorkingLeg, may_answer
from brain_server.core.pending_now import PendingNow
from brain_server.core.vectors import TextVectors
from brain_server.domain.merging import Scale, likeness
from brain_server.domain.pending import applied
from brain_server.ports import Clock, PendingWrites
from brain_server.ports.long_term import LongTerm, LongTermAnswer, StoredHit
from soma_contract.errors import (
    CircuitBreakerOpenError,
    Code,
    ComponentUnavailableError,
    DimensionMismatchError,
    SomaError,
)
from soma_contract.filters import AllOf, NumberField, NumberRange, with_default_namespace
from soma_contract.limits import LIMITS
from soma_contract.memory import Memory, Remember
from soma_contract.recall import Hit, Leg, LegReport, LegState, RecallQuery, Source, Summary
from soma_contract.tenant import Tenant
from soma_contract.tokenizer import count_tokens

OUTAGES = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
_OWN_LEGS = frozenset({Leg.WORKING, Leg.PENDING})
_LONG_TERM_LEGS = (Leg.EXACT, Leg.DENSE, Leg.KEYWORD, Leg.OVERLAY, Leg.LATE_INTERACTION)
_MARGIN_S = 0.05
"""What is left of a deadline for ranking and answering."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, those of the memory server unread where nothing was to be changed; and what was searched."""

    hits: tuple[Hit | StoredHit, ...]
    summary: Summary


@dataclass(frozen=True, slots=True)
class _Session:
    """The session of a recall; an empty id is none."""

    session_id: str
    namespace: str
    long_term_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recalling:
    """Recalls through the brain."""

    long_term: LongTerm
    pending: PendingWrites
    working_leg: WorkingLeg
    vectors: TextVectors
    clock: Clock
    on_summary: Callable[[Summary], None] = lambda summary: None
    """Called at the end of each recall, for metrics."""

    async def recall(
        self,
        tenant: Tenant,
        query: RecallQuery,
        *,
        namespace: str,
        session_id: str = "",
        deadline_s: float | None = None,
    ) -> Answer:
        """Return hits, best first, and what was searched.

        Raises the memory server's refusal, and its outage when ``allow_degraded`` is off or nothing else was found.
        """
        answer = await self._recalled(tenant, query, namespace, session_id, deadline_s)
        self.on_summary(answer.summary)
        return answer

    async def _recalled(
        self, tenant: Tenant, query: RecallQuery, namespace: str, session_id: str, deadline_s: float | None
    ) -> Answer:
        started = self.clock.monotonic()
        query = replace(query, filter=with_default_namespace(query.filter, namespace))
        session = await self._session(tenant, session_id, query, namespace)
        legs = query.legs - _OWN_LEGS
        if not session.session_id and not self.pending.count(tenant) and (legs or not query.legs):
            answer = await self.long_term.recall(tenant, replace(query, legs=legs))
            return Answer(answer.hits, _with_legs(answer.summary, [_skipped(Leg.WORKING), _skipped(Leg.PENDING)]))
        return await self._merged(tenant, query, session, started, deadline_s)

    async def _session(self, tenant: Tenant, session_id: str, query: RecallQuery, namespace: str) -> _Session:
        wanted = session_id and query.like is None and (not query.legs or Leg.WORKING in query.legs)
        if not wanted or not await self.working_leg.working.count(tenant, session_id):
            return _Session("", namespace)
        ids = self.working_leg.working.long_term_ids(tenant, session_id)
        # The items used last stand at the end.
        return _Session(session_id, namespace, tuple(ids[-LIMITS.filter_values :]))

    async def _merged(
        self, tenant: Tenant, query: RecallQuery, session: _Session, started: float, deadline_s: float | None
    ) -> Answer:
        for given in (query.embedding, query.text_embedding):
            if given is not None and given.dimension != self.vectors.dimension:
                raise DimensionMismatchError(expected=str(self.vectors.dimension), actual=str(given.dimension))
        left_s = None if deadline_s is None else max(0.0, deadline_s - _MARGIN_S)
        # Before long-term memory is asked: what is delivered while it searches is in neither otherwise.
        pending = await PendingNow.of(tenant, self.pending)
        rechecked = tuple(dict.fromkeys((*query.recheck_ids, *session.long_term_ids)))[: LIMITS.filter_values]
        decided = await self._decided(tenant, rechecked)
        undecided = tuple(each for each in rechecked if each not in decided)
        asked: LongTermAnswer | SomaError
        if query.legs and not query.legs - _OWN_LEGS:
            asked = LongTermAnswer((), Summary(tuple(_skipped(leg) for leg in _LONG_TERM_LEGS)))
            own = await self._search(tenant, query, session, pending, left_s)
        else:
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(self._ask(tenant, replace(query, recheck_ids=undecided)))
                own = await self._search(tenant, query, session, pending, left_s)
            asked = asking.result()
        if isinstance(asked, SomaError):
            if asked.code not in OUTAGES or not query.allow_degraded:
                raise asked
            answer = LongTermAnswer((), self._without_long_term(asked, started))
        else:
            answer = asked
        question, legs = own
        summary = _with_legs(answer.summary, [leg.report for leg in legs])
        if summary.degraded and not query.allow_degraded:
            raise ComponentUnavailableError(component="embedder", retry_after_s=1.0)
        gone = frozenset(answer.summary.gone_ids)
        if lost := gone.intersection(session.long_term_ids):
            await self.working_leg.working.forget(tenant, sorted(lost))
        stored = await self._current(tenant, query, pending, answer.hits)
        found = [hit for leg in legs for hit in leg.hits if hit.memory.memory_id not in gone]
        if pending or self.pending.count(tenant):
            found = [hit for hit in found if not await self._is_forgotten(tenant, pending, hit)]
        hits = self._ranked(query, question, stored, found) if found else stored
        hits = _within_budget(hits[: query.limit], query.token_budget)
        if isinstance(asked, SomaError) and not hits:
            raise asked
        await self._count_uses(tenant, session, hits, found)
        summary = replace(
            summary,
            considered=summary.considered + sum(leg.report.candidates for leg in legs),
            gone_ids=tuple(each for each in query.recheck_ids if each in gone or decided.get(each)),
            tokens=sum(_tokens(hit) for hit in hits) if query.token_budget else 0,
            duration_s=self.clock.monotonic() - started,
        )
        return Answer(tuple(hits), summary)

    async def _decided(self, tenant: Tenant, memory_ids: Sequence[str]) -> dict[str, bool]:
        """Return which of these memories pending writes decide about: True if they delete it."""
        decided: dict[str, bool] = {}
        for memory_id in memory_ids:
            if self.pending.any_touching(tenant, memory_id):
                commands = await self.pending.touching(tenant, memory_id)
                is_gone = applied(Memory(memory_id=memory_id), commands) is None
                if commands and (is_gone or isinstance(commands[0][0], Remember)):
                    decided[memory_id] = is_gone
        return decided

    async def _ask(self, tenant: Tenant, query: RecallQuery) -> LongTermAnswer | SomaError:
        """Ask long-term memory, and whether the memories to re-check are still there."""
        try:
            return await self.long_term.recall(tenant, replace(query, legs=query.legs - _OWN_LEGS))
        except SomaError as error:
            return error

    async def _search(
        self, tenant: Tenant, query: RecallQuery, session: _Session, pending: PendingNow, left_s: float | None
    ) -> tuple[Question, list[OwnHits]]:
        """Search what the brain holds itself."""
        if query.min_relevance is not None:
            floor = NumberRange(NumberField.RELEVANCE, low=query.min_relevance)
            query = replace(query, filter=AllOf((query.filter, floor)))
        question = await Question.of(
            query, self.vectors, embedded=bool(session.session_id) or self._is_waiting(tenant), deadline_s=left_s
        )
        working = OwnHits([], _skipped(Leg.WORKING))
        if session.session_id:
            working = await self.working_leg.search(tenant, session.session_id, query, question, session.namespace)
        waiting = OwnHits([], _skipped(Leg.PENDING))
        if pending and (not query.legs or Leg.PENDING in query.legs):
            leg = PendingLeg(pending, self.vectors, self.clock)
            waiting = await leg.search(query, question, left_s)
        return question, [working, waiting]

    def _is_waiting(self, tenant: Tenant) -> bool:
        """Whether pending writes are more than those that are on their way at any moment."""
        oldest_at = self.pending.oldest_at(tenant)
        return oldest_at is not None and oldest_at < self.clock.now() - WAITING

    async def _current(
        self, tenant: Tenant, query: RecallQuery, pending: PendingNow, hits: Sequence[StoredHit]
    ) -> list[Hit | StoredHit]:
        """Return the hits as pending writes have left them."""
        if not pending:
            return [*hits]
        current: list[Hit | StoredHit] = []
        for hit in hits:
            older = await self.pending.touching(tenant, hit.memory_id) if pending.truncated else ()
            if not older and not pending.touches(hit.memory_id):
                current.append(hit)
                continue
            read = hit.read()
            base = applied(read.memory, older)
            memory = base if base is None else pending.applied(base)
            if memory is not None and may_answer(memory, query.filter, self.clock.now()):
                current.append(replace(read, memory=memory, source=Source.PENDING))
        return current

    async def _is_forgotten(self, tenant: Tenant, pending: PendingNow, hit: OwnHit) -> bool:
        """Whether a pending write has deleted the memory that an item became."""
        if hit.source is not Source.WORKING:
            return False
        if pending.applied(hit.memory) is None:
            return True
        if not self.pending.any_touching(tenant, hit.memory.memory_id):
            return False
        commands = await self.pending.touching(tenant, hit.memory.memory_id)
        return applied(hit.memory, commands) is None

    def _ranked(
        self, query: RecallQuery, question: Question, stored: Sequence[Hit | StoredHit], found: Sequence[OwnHit]
    ) -> list[Hit | StoredHit]:
        """Place what the brain found among the hits of the memory server; one hit a memory."""
        read: list[Hit] = [each if isinstance(each, Hit) else each.read() for each in stored]
        likes = [likeness(hit.signals.dense, question.share(hit.memory)) for hit in read]
        scale = Scale([(like, hit.score) for like, hit in zip(likes, read, strict=True)])
        hits = {hit.memory.memory_id: hit for hit in read}
        for own in found:
            if not _is_near_enough(query, own):
                continue
            score = scale.score(own.likeness)
            same = hits.get(own.memory.memory_id)
            if same is None:
                hits[own.memory.memory_id] = Hit(own.memory, score, own.signals, own.source)
            elif own.source is Source.WORKING:
                signals = replace(same.signals, working=own.salience)
                hits[own.memory.memory_id] = replace(same, score=max(score, same.score), signals=signals)
            elif same.source is Source.WORKING:
                # What waits in the outbox is what will be stored.
                signals = replace(own.signals, working=same.signals.working)
                hits[own.memory.memory_id] = Hit(own.memory, max(score, same.score), signals, own.source)
        ranked: list[Hit] = sorted(
            hits.values(), key=lambda hit: (-(hit.signals.exact or 0.0), -hit.score, hit.memory.memory_id)
        )
        return [*ranked]

    async def _count_uses(
        self, tenant: Tenant, session: _Session, hits: Sequence[Hit | StoredHit], found: Sequence[OwnHit]
    ) -> None:
        """Recalled is used: the items among the hits, and those that became one of them."""
        if not session.session_id:
            return
        answered = {hit.memory.memory_id if isinstance(hit, Hit) else hit.memory_id for hit in hits}
        items = [own.item_id for own in found if own.item_id and own.memory.memory_id in answered]
        await self.working_leg.working.use(tenant, session.session_id, items, answered)

    def _without_long_term(self, error: SomaError, started: float) -> Summary:
        late = error.code is Code.DEADLINE_EXCEEDED
        state = LegState.DROPPED if late else LegState.DEGRADED
        cause = "BREAKER_OPEN:memory" if isinstance(error, CircuitBreakerOpenError) else f"{error.reason}:memory"
        took_s = self.clock.monotonic() - started
        return Summary(tuple(LegReport(leg, state, took_s, cause) for leg in _LONG_TERM_LEGS))


def _is_near_enough(query: RecallQuery, hit: OwnHit) -> bool:
    return query.min_score is None or hit.exact or (hit.cosine is not None and hit.cosine >= query.min_score)


def _within_budget(hits: Sequence[Hit | StoredHit], token_budget: int) -> list[Hit | StoredHit]:
    """Fill a budget with hits, best first; one that is too long leaves room for the next."""
    if not token_budget:
        return [*hits]
    kept: list[Hit | StoredHit] = []
    spent = 0
    for hit in hits:
        read = hit if isinstance(hit, Hit) else hit.read()
        tokens = read.tokens or count_tokens(read.memory.text)
        if spent + tokens <= token_budget:
            spent += tokens
            kept.append(replace(read, tokens=tokens))
    return kept


def _tokens(hit: Hit | StoredHit) -> int:
    return hit.tokens if isinstance(hit, Hit) else 0


def _skipped(leg: Leg) -> LegReport:
    return LegReport(leg, LegState.SKIPPED)


def _with_legs(summary: Summary, reports: Sequence[LegReport]) -> Summary:
    own = {report.leg for report in reports}
    return replace(summary, legs=(*(leg for leg in summary.legs if leg.leg not in own), *reports))

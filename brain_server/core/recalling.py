"""The verb *recall* on the brain: long-term memory with pending writes applied, and what is left in an outage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from brain_server.domain.overlap import scored_by_terms
from brain_server.domain.pending import applied, places
from brain_server.ports import Clock, LongTerm, PendingWrites
from soma_contract.errors import CircuitBreakerOpenError, Code, SomaError
from soma_contract.filters import Filter, with_default_namespace
from soma_contract.filters import matches as filter_matches
from soma_contract.memory import Command, Memory, Remember
from soma_contract.recall import Hit, Leg, LegReport, LegState, Recalled, RecallQuery, Source, Summary
from soma_contract.tenant import Tenant

_OUTAGES = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
_LONG_TERM_LEGS = (Leg.EXACT, Leg.DENSE, Leg.KEYWORD, Leg.OVERLAY, Leg.LATE_INTERACTION)


@dataclass(frozen=True, slots=True)
class Recalling:
    """Recalls through the brain; an outage of long-term memory is named in the summary, never an empty success."""

    long_term: LongTerm
    pending: PendingWrites
    clock: Clock

    async def recall(self, tenant: Tenant, query: RecallQuery, *, namespace: str) -> Recalled:
        """Return hits, best first, and what was searched.

        Raises the memory server's refusal, and its outage when ``allow_degraded`` is off.
        """
        started = self.clock.monotonic()
        query = replace(query, filter=with_default_namespace(query.filter, namespace))
        waiting = await self._waiting(tenant)
        try:
            answer = await self.long_term.recall(tenant, query)
        except SomaError as error:
            if error.code not in _OUTAGES or not query.allow_degraded or not waiting:
                raise
            answer = self._without_long_term(error, started)
        if not waiting:
            return _with_leg(answer, LegReport(Leg.PENDING, LegState.SKIPPED))
        return self._merged(query, answer, waiting, started)

    async def _waiting(self, tenant: Tenant) -> dict[str, list[tuple[Command, datetime]]]:
        if not self.pending.count(tenant):
            return {}
        waiting: dict[str, list[tuple[Command, datetime]]] = {}
        for command, at in await self.pending.all_of(tenant):
            place = command.memory.memory_id if isinstance(command, Remember) else places(command.target)[0]
            waiting.setdefault(place, []).append((command, at))
        return waiting

    def _merged(
        self,
        query: RecallQuery,
        answer: Recalled,
        waiting: dict[str, list[tuple[Command, datetime]]],
        started: float,
    ) -> Recalled:
        """Mask what pending writes changed or deleted, and rank what they add among the rest."""
        kept: list[Hit] = []
        for hit in answer.hits:
            commands = waiting.get(hit.memory.memory_id)
            if commands is None:
                kept.append(hit)
                continue
            memory = applied(hit.memory, commands)
            del waiting[hit.memory.memory_id]
            if memory is not None and self._may_answer(memory, query.filter):
                kept.append(replace(hit, memory=memory, source=Source.PENDING))
        fresh = [
            memory
            for commands in waiting.values()
            if (memory := applied(None, commands)) is not None and self._may_answer(memory, query.filter)
        ]
        top = max((hit.score for hit in kept), default=1.0)
        added = [
            Hit(memory, score * top, signals=signals, source=Source.PENDING)
            for memory, score, signals in scored_by_terms(query.text, fresh)
        ]
        hits = sorted((*kept, *added), key=lambda hit: (-(hit.signals.exact or 0.0), -hit.score, hit.memory.memory_id))
        report = LegReport(Leg.PENDING, LegState.RAN, self.clock.monotonic() - started, candidates=len(fresh))
        return _with_leg(Recalled(tuple(hits[: query.limit]), answer.summary), report)

    def _may_answer(self, memory: Memory, filter: Filter) -> bool:
        expired = memory.expires_at is not None and memory.expires_at <= self.clock.now()
        return not expired and filter_matches(filter, memory)

    def _without_long_term(self, error: SomaError, started: float) -> Recalled:
        late = error.code is Code.DEADLINE_EXCEEDED
        state = LegState.DROPPED if late else LegState.DEGRADED
        cause = "BREAKER_OPEN:memory" if isinstance(error, CircuitBreakerOpenError) else f"{error.reason}:memory"
        took_s = self.clock.monotonic() - started
        return Recalled((), Summary(tuple(LegReport(leg, state, took_s, cause) for leg in _LONG_TERM_LEGS)))


def _with_leg(answer: Recalled, report: LegReport) -> Recalled:
    legs = (*(leg for leg in answer.summary.legs if leg.leg is not report.leg), report)
    return Recalled(answer.hits, replace(answer.summary, legs=legs))

"""The verb *assemble*: what an agent pastes into its prompt, each line citing the memories it rests on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from brain_server.core.linking import Linking
from brain_server.core.recalling import Answer, Recalling
from brain_server.core.shortening import LanguageModel, Shortening
from brain_server.domain.composing import Section, composed
from brain_server.domain.persona import Category
from brain_server.ports import Clock
from brain_server.ports.long_term import StoredHit
from soma_contract.errors import SomaError
from soma_contract.ids import new_memory_id
from soma_contract.links import Evidence, UseTogether
from soma_contract.memory import Memory
from soma_contract.recall import Hit, LegReport, LegState, Preset, RecallQuery, Source
from soma_contract.tenant import Tenant
from soma_contract.tokenizer import count_tokens

log = logging.getLogger(__name__)

_SEARCHED_CHARS = 1_000
"""Of a conversation its end is searched for: an embedding reads little more anyway."""
_USED_TOGETHER = 32
_MODEL_SHARE = 0.5
"""Of what is left of the deadline when the searches are done, what a language model may take."""
_MODEL_S = 5.0
_WORST_FIRST = {state: place for place, state in enumerate((LegState.DEGRADED, LegState.DROPPED, LegState.RAN))}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to assemble."""

    text: str
    categories: tuple[Category, ...]
    persona_id: str = ""
    session_id: str = ""
    namespace: str = ""
    token_budget: int = 2_000
    preset: Preset = Preset.BALANCED
    allow_degraded: bool = True
    reinforce: bool = True
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was done for a context."""

    tokens: int
    omitted: int
    summarised: int
    degraded: bool
    legs: tuple[LegReport, ...]
    failed_categories: tuple[str, ...]
    revision: int
    duration_s: float


Emit = Callable[[Section], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Assembling:
    """Searches a persona's categories side by side and writes what was found within a budget."""

    recalling: Recalling
    linking: Linking
    clock: Clock
    model: LanguageModel | None = None

    async def assemble(
        self, tenant: Tenant, wanted: Wanted, emit: Emit, *, deadline_s: float | None = None
    ) -> Assembled:
        """Emit the sections in the order of their categories and return what was done.

        Raises the first category's error when none could be searched, or one could not and ``allow_degraded`` is off.
        """
        started = self.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            searches = [
                group.create_task(self._search(tenant, wanted, category, deadline_s)) for category in wanted.categories
            ]
        answers = [search.result() for search in searches]
        failures = [answer for answer in answers if isinstance(answer, SomaError)]
        if failures and (len(failures) == len(answers) or not wanted.allow_degraded):
            raise failures[0]
        found = _each_once(answers)
        left_s = _MODEL_S if deadline_s is None else deadline_s - (self.clock.monotonic() - started)
        shortening = await Shortening.of(
            wanted.text,
            [memory for memories in found for memory in memories],
            self.model,
            min(_MODEL_S, _MODEL_SHARE * left_s),
        )
        sections = await self._written(wanted, found, shortening, emit)
        if wanted.reinforce:
            await self._reinforce(tenant, wanted, sections, answers)
        succeeded = [answer for answer in answers if isinstance(answer, Answer)]
        lines = [line for section in sections for line in section.lines]
        quoted = {memory_id for line in lines if not line.summarised for memory_id in line.memory_ids}
        cited = {memory_id for line in lines for memory_id in line.memory_ids}
        return Assembled(
            tokens=sum(section.tokens for section in sections),
            omitted=sum(section.omitted for section in sections),
            summarised=len(cited - quoted),
            degraded=bool(failures) or any(answer.summary.degraded for answer in succeeded),
            legs=_legs(succeeded),
            failed_categories=tuple(
                category.name
                for category, answer in zip(wanted.categories, answers, strict=True)
                if isinstance(answer, SomaError)
            ),
            revision=min((answer.summary.revision for answer in succeeded), default=0),
            duration_s=self.clock.monotonic() - started,
        )

    async def _search(
        self, tenant: Tenant, wanted: Wanted, category: Category, deadline_s: float | None
    ) -> Answer | SomaError:
        query = RecallQuery(
            text=category.text or ending(wanted.text, _SEARCHED_CHARS),
            filter=category.of_persona(wanted.persona_id),
            limit=category.limit,
            min_score=category.min_score,
            preset=wanted.preset,
            allow_degraded=wanted.allow_degraded,
        )
        try:
            return await self.recalling.recall(
                tenant, query, namespace=wanted.namespace, session_id=wanted.session_id, deadline_s=deadline_s
            )
        except SomaError as error:
            return error

    async def _written(
        self, wanted: Wanted, found: Sequence[Sequence[Memory]], shortening: Shortening, emit: Emit
    ) -> list[Section]:
        """Write section after section; what one leaves of its share goes to the next ones."""
        sections: list[Section] = []
        left = wanted.token_budget
        shares = [
            category.share if memories else 0.0 for category, memories in zip(wanted.categories, found, strict=True)
        ]
        for place, (category, memories) in enumerate(zip(wanted.categories, found, strict=True)):
            if not memories:
                continue
            budget = int(left * shares[place] / sum(shares[place:]))
            section = composed(
                category.name,
                memories,
                budget,
                line_of=shortening.line,
                tail_of=shortening.tail,
                count=count_tokens,
            )
            left -= section.tokens
            sections.append(section)
            await emit(section)
            # Counting tokens keeps the loop busy: others run between sections.
            await asyncio.sleep(0)
        return sections

    async def _reinforce(
        self, tenant: Tenant, wanted: Wanted, sections: Sequence[Section], answers: Sequence[Answer | SomaError]
    ) -> None:
        """Tell the graph which memories were used together; the answer does not wait for it."""
        known = {
            _memory_id(hit)
            for answer in answers
            if isinstance(answer, Answer)
            for hit in answer.hits
            if not (isinstance(hit, Hit) and hit.source is Source.WORKING)
        }
        used = [memory_id for section in sections for memory_id in section.memory_ids if memory_id in known]
        if len(used) < 2:
            return
        request_id = wanted.request_id or f"brain-{new_memory_id()}"
        frame = Evidence(request_id, 1, UseTogether(tuple(used[:_USED_TOGETHER]), request_id=request_id))

        async def frames() -> AsyncIterator[Evidence]:
            yield frame

        try:
            await self.linking.reinforce(tenant, frames(), deadline_s=0.0)
        except* SomaError as errors:
            log.warning("memories could not be told as used together: %s", errors.exceptions[0])


def ending(text: str, most_chars: int) -> str:
    """Return the end of a text, from the start of a line or word on."""
    if len(text) <= most_chars:
        return text
    end = text[-most_chars:]
    line, word = end.find("\n"), end.find(" ")
    cut = line if 0 <= line < most_chars // 2 else word
    return end[cut + 1 :].strip() or end


def _each_once(answers: Sequence[Answer | SomaError]) -> list[list[Memory]]:
    """Return each answer's memories, best first; one that several found stands where it stands highest first."""
    seen: set[str] = set()
    found: list[list[Memory]] = []
    for answer in answers:
        memories = []
        for hit in answer.hits if isinstance(answer, Answer) else ():
            if _memory_id(hit) not in seen:
                seen.add(_memory_id(hit))
                memories.append((hit if isinstance(hit, Hit) else hit.read()).memory)
        found.append(memories)
    return found


def _memory_id(hit: Hit | StoredHit) -> str:
    return hit.memory.memory_id if isinstance(hit, Hit) else hit.memory_id


def _legs(answers: Sequence[Answer]) -> tuple[LegReport, ...]:
    """Return one report a leg, its worst, worst first."""
    worst: dict[object, LegReport] = {}
    for answer in answers:
        for report in answer.summary.legs:
            held = worst.get(report.leg)
            if held is None or _rank(report) < _rank(held):
                worst[report.leg] = report
            elif _rank(report) == _rank(held):
                worst[report.leg] = replace(
                    held,
                    duration_s=max(held.duration_s, report.duration_s),
                    candidates=held.candidates + report.candidates,
                )
    return tuple(sorted(worst.values(), key=_rank))


def _rank(report: LegReport) -> int:
    return _WORST_FIRST.get(report.state, len(_WORST_FIRST))

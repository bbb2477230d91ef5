"""The commands of many callers, decided in one scene: repetitions, atomic calls, answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from memory_server.ports import Analyse, KeywordTerms
from memory_server.stores.deciding import Scene
from memory_server.stores.requests import Request
from memory_server.stores.standings import Verdict
from soma_contract.errors import RequestIdReusedError, SomaError
from soma_contract.memory import Memory, Remember, Written

Answer = Written | SomaError
Answers = list[Answer]
Outcome = Answers | SomaError
"""The answers of one call, or why an atomic call was refused as a whole."""

Spoken = tuple[str, str, datetime | None]
"""What keyword terms are a function of."""


@dataclass(frozen=True, slots=True)
class Call:
    """The commands of one caller, with the terms of the texts they bring."""

    requests: tuple[Request, ...]
    terms: dict[Spoken, KeywordTerms]
    atomic: bool = False

    @classmethod
    def of(cls, requests: Sequence[Request], analyse: Analyse, *, atomic: bool) -> Call:
        """Prepare a call: the texts are analysed before any row is locked."""
        terms = {
            spoken(request.command.memory): analyse(request.command.memory)
            for request in requests
            if isinstance(request.command, Remember)
        }
        return cls(tuple(requests), terms, atomic)


@dataclass(slots=True)
class Decided:
    """What a scene decided: verdicts by call, and those that are to be kept by request id."""

    scene: Scene
    outcomes: list[list[Verdict | Answer] | SomaError] = field(default_factory=list)
    records: list[tuple[Request, Verdict]] = field(default_factory=list)
    unsure: bool = False
    """Whether a request was refused or changed nothing, which a repetition may look like."""

    def answers(self, before: int) -> list[Outcome]:
        """The outcomes in the order of the calls, given the revision before the scene."""
        return [
            outcome
            if isinstance(outcome, SomaError)
            else [one.written(before) if isinstance(one, Verdict) else one for one in outcome]
            for outcome in self.outcomes
        ]


Known = Callable[[Request], Answer | None]
"""The first answer to a request that came before, REQUEST_ID_REUSED for another one of its id, or None."""


def decide(scene: Scene, calls: Sequence[Call], known: Known) -> Decided:
    """Decide all calls in order; an atomic call with a refusal leaves no trace in the scene."""
    decided = Decided(scene)
    answered: dict[str, tuple[Request, Verdict]] = {}
    for call in calls:
        mark = scene.mark() if call.atomic else None
        fresh: dict[str, tuple[Request, Verdict]] = {}
        outcome: list[Verdict | Answer] = []
        for request in call.requests:
            answer = _answer(scene, request, known, answered | fresh if fresh else answered)
            request_id = request.command.request_id
            if request_id and isinstance(answer, Verdict):
                fresh.setdefault(request_id, (request, answer))
            if request_id and not (isinstance(answer, Verdict) and answer.changed):
                decided.unsure = True
            outcome.append(answer)
            if mark is not None and isinstance(answer, SomaError):
                break
        if mark is not None and isinstance(outcome[-1], SomaError):
            scene.rewind(mark)
            # Nothing of it will be written, so no record of it can meet an earlier one.
            decided.unsure = decided.unsure or any(request.command.request_id for request in call.requests)
            decided.outcomes.append(outcome[-1])
            continue
        answered |= fresh
        decided.outcomes.append(outcome)
    decided.records = list(answered.values())
    return decided


def spoken(memory: Memory) -> Spoken:
    """What the keyword terms of a memory depend on."""
    return memory.actor, memory.text, memory.occurred_at


def _answer(
    scene: Scene, request: Request, known: Known, answered: dict[str, tuple[Request, Verdict]]
) -> Verdict | Answer:
    request_id = request.command.request_id
    if not request_id:
        return scene.decide(request)
    if (first := known(request)) is not None:
        return first
    if request_id in answered:
        earlier, verdict = answered[request_id]
        if earlier.fingerprint != request.fingerprint:
            return RequestIdReusedError(request_id=request_id)
        return verdict
    return scene.decide(request)

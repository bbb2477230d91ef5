"""The verb *reinforce*: what was used together is linked closer, what an option brought moves its utility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memory_server.ports import GraphStore, Journal
from soma_contract.errors import (
    FieldViolationError,
    MemoryNotFoundError,
    RequestIdReusedError,
    SomaError,
    VersionMismatchError,
    WriteConflictError,
)
from soma_contract.links import UTILITY_STEP, Evidence, OptionOutcome, Reinforced, UseTogether
from soma_contract.memory import Kind, Memory, Origin, Target, Update
from soma_contract.tenant import Tenant

_TRIES = 16


@dataclass(frozen=True, slots=True)
class Reinforcing:
    """Applies evidence, each frame once for its request id and sequence."""

    graph: GraphStore
    journal: Journal

    async def apply(
        self,
        tenant: Tenant,
        frames: Sequence[Evidence],
        *,
        origin: Origin | None = None,
        deadline_s: float | None = None,
    ) -> Reinforced:
        """Commit frames in order; those of use in one transaction where they follow each other.

        Raises FieldViolationError for an outcome of a memory that is not an option.
        """
        total = Reinforced()
        used: list[UseTogether] = []
        for frame in frames:
            if isinstance(frame.learnt, UseTogether):
                used.append(replace(frame.learnt, request_id=frame.frame_id))
                continue
            total = total.plus(await self._used(tenant, used, deadline_s))
            used = []
            total = total.plus(await self._turned_out(tenant, frame, frame.learnt, deadline_s))
        return total.plus(await self._used(tenant, used, deadline_s))

    async def _used(self, tenant: Tenant, used: Sequence[UseTogether], deadline_s: float | None) -> Reinforced:
        total = Reinforced()
        for answer in await self.graph.write(tenant, used, deadline_s=deadline_s):
            if isinstance(answer, RequestIdReusedError):
                # The frame is known by its number; what it says the second time does not matter.
                total = total.plus(Reinforced(repeated=1))
            elif isinstance(answer, SomaError):
                raise answer
            elif answer.repeated:
                total = total.plus(Reinforced(repeated=1, revision=answer.revision))
            else:
                total = total.plus(Reinforced(applied=1, unknown=answer.unknown, revision=answer.revision))
        return total

    async def _turned_out(
        self, tenant: Tenant, frame: Evidence, learnt: OptionOutcome, deadline_s: float | None
    ) -> Reinforced:
        """Move an option's utility; another writer in between makes it start over from the new value."""
        target = Target(memory_id=learnt.memory_id)
        for _ in range(_TRIES):
            if await self.graph.answered(tenant, [frame.frame_id]):
                return Reinforced(repeated=1)
            (option,) = await self.journal.get(tenant, [target])
            if option is None:
                return Reinforced(applied=1, unknown=1)
            if option.kind is not Kind.PROCEDURAL:
                raise FieldViolationError.at(
                    "option_outcome.memory_id", "must name an option: a memory of the kind PROCEDURAL"
                )
            update = Update(
                target,
                Memory(importance=moved(option.importance, learnt.outcome)),
                ("importance",),
                if_match=option.version,
                request_id=frame.frame_id,
            )
            (answer,) = await self.journal.write(tenant, [update], deadline_s=deadline_s)
            if isinstance(answer, VersionMismatchError | RequestIdReusedError | MemoryNotFoundError):
                continue
            if isinstance(answer, SomaError):
                raise answer
            return Reinforced(applied=1, revision=answer.revision)
        raise WriteConflictError


def moved(utility: float | None, outcome: float) -> float:
    """The utility after an outcome, u ← u + 0.05 · (outcome − u); an option not tried yet starts at 0."""
    before = utility or 0.0
    return before + UTILITY_STEP * (outcome - before)

"""The verb *observe*: what an agent perceives and does goes into working memory, in the order of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brain_server.core.promoting import Promoted, Promoting
from brain_server.core.vectors import TextVectors
from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.item import Item, ItemKind, Observation, Observed, Verdict
from soma_contract.embedders.base import Priority
from soma_contract.errors import DimensionMismatchError, OffsetGapError, SomaError
from soma_contract.memory import Vector
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Message:
    """An observation as an agent sends it, or why it breaks the contract."""

    sequence: int
    kind: ItemKind = ItemKind.OBSERVATION
    text: str = ""
    payload_json: str = ""
    reward: float = 0.0
    embedding: Vector | None = None
    item_id: str = ""
    memory_id: str = ""
    actor: str = ""
    occurred_s: float = 0.0
    refusal: SomaError | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message; ``item`` is the one it made, renewed or repeats, None if that is not there."""

    message: Message
    observed: Observed | None = None
    item: Item | None = None
    repeated: bool = False
    refusal: SomaError | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session at the start of a stream."""

    session_id: str
    resumed: bool
    last_sequence: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Observing:
    """Takes observations in for one working memory."""

    working: WorkingMemory
    vectors: TextVectors

    async def open(self, tenant: Tenant, session_id: str, persona_id: str) -> Opened:
        """Begin or resume a session.  Raises FieldViolationError if it is another persona's."""
        resumed = await self.working.open(tenant, session_id, persona_id)
        items = await self.working.items(tenant, session_id)
        items.sort(key=lambda item: (-item.salience, item.ordinal))
        last_sequence = await self.working.last_sequence(tenant, session_id)
        return Opened(session_id, resumed, last_sequence, tuple(items))

    async def take(self, tenant: Tenant, session_id: str, last: int, messages: Sequence[Message]) -> list[Outcome]:
        """Take messages in and return, after the fsync, what became of each; ``last`` is the number before them.

        A number already taken changes nothing; one that leaves a gap ends the list before it.
        Raises OffsetGapError if there is nothing before the gap, and what the embedder or the disk raises.
        """
        taken: list[Message] = []
        repeated: set[int] = set()
        refused: dict[int, SomaError] = {}
        for place, message in enumerate(messages):
            refusal = message.refusal or self._refusal(message)
            if message.sequence > last + 1:
                if not place:
                    raise OffsetGapError(expected_offset=str(last + 1))
                messages = messages[:place]
                break
            if message.sequence > last:
                last = message.sequence
                if refusal is None:
                    taken.append(message)
                else:
                    refused[place] = refusal
            elif message.sequence < 1 and refusal is not None:
                refused[place] = refusal
            else:
                repeated.add(place)
        answers = iter(await self._observe(tenant, session_id, taken))
        outcomes: list[Outcome] = []
        for place, message in enumerate(messages):
            if place in refused:
                outcomes.append(Outcome(message, refusal=refused[place]))
            elif place in repeated:
                outcomes.append(Outcome(message, repeated=True))
            else:
                observed = next(answers)
                outcomes.append(Outcome(message, observed, repeated=observed.verdict is Verdict.REPEATED))
        return await self._with_items(tenant, session_id, outcomes)

    async def _observe(self, tenant: Tenant, session_id: str, messages: Sequence[Message]) -> list[Observed]:
        unembedded = [message.text for message in messages if message.embedding is None]
        priority = Priority.INTERACTIVE if len(unembedded) == 1 else Priority.BULK
        made = iter(await self.vectors.of(unembedded, priority=priority) if unembedded else ())
        observations = [
            Observation(
                kind=message.kind,
                text=message.text,
                vector=next(made) if message.embedding is None else message.embedding.array,
                reward=message.reward,
                payload_json=message.payload_json,
                sequence=message.sequence,
                item_id=message.item_id,
                long_term_id=message.memory_id,
                actor=message.actor,
                occurred_s=message.occurred_s,
            )
            for message in messages
        ]
        return await self.working.observe(tenant, session_id, observations)

    def _refusal(self, message: Message) -> SomaError | None:
        if message.embedding is None or message.embedding.dimension == self.vectors.dimension:
            return None
        return DimensionMismatchError(expected=str(self.vectors.dimension), actual=str(message.embedding.dimension))

    async def _with_items(self, tenant: Tenant, session_id: str, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Fill in the items as they are now."""
        ids = [outcome.observed.item_id for outcome in outcomes if outcome.observed is not None]
        present = await self.working.found(tenant, session_id, ids)
        again = [outcome.message.sequence for outcome in outcomes if outcome.repeated]
        made = await self.working.made_by(tenant, session_id, again) if again else {}
        return [
            Outcome(
                outcome.message,
                outcome.observed,
                made.get(outcome.message.sequence)
                if outcome.repeated
                else present.get(outcome.observed.item_id if outcome.observed else ""),
                outcome.repeated,
                outcome.refusal,
            )
            for outcome in outcomes
        ]


@dataclass(frozen=True, slots=True)
class Closed:
    """What a closed session held; still open if a promotion was refused."""

    existed: bool
    item_count: int
    promoted: tuple[Promoted, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """The verb *close*."""

    working: WorkingMemory
    promoting: Promoting

    async def close(self, tenant: Tenant, session_id: str, promote_from: float | None) -> Closed:
        """Promote what is salient enough, then end the session and drop its items."""
        if not await self.working.exists(tenant, session_id):
            return Closed(False, 0)
        items = await self.working.items(tenant, session_id)
        promoted: list[Promoted] = []
        if promote_from is not None:
            salient = [item.item_id for item in items if item.salience >= promote_from and not item.long_term_id]
            promoted = await self.promoting.promote_items(tenant, session_id, salient)
        if not any(each.error for each in promoted):
            await self.working.close(tenant, session_id)
        return Closed(True, len(items), tuple(promoted))

"""A brain's parts on stores in memory, with a memory server that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from brain_server.core.observing import Message, Observing
from brain_server.core.own_hits import WorkingLeg
from brain_server.core.promoting import Promoting
from brain_server.core.recalling import Answer, Recalling
from brain_server.core.remembering import Remembering
from brain_server.core.vectors import TextVectors
from brain_server.core.working_memory import WorkingMemory
from brain_server.gateway.commands import encoded
from brain_server.gateway.delivery import Delivery
from brain_server.gateway.outbox import Outbox, OutboxBounds
from brain_server.gateway.pending import OutboxWrites
from brain_server.gateway.sending import MemorySender
from brain_server.ports import SystemClock
from brain_server.ports.long_term import ForgottenSoFar, LongTermAnswer, MemoryList, MemoryPast, StoredHit
from brain_server.stores.inmemory.entries import InMemoryOutbox
from brain_server.stores.inmemory.items import InMemorySessions
from soma_contract.embedders.hashing import HashingEmbedder
from soma_contract.errors import ComponentUnavailableError, MemoryNotFoundError, SomaError
from soma_contract.filters import Filter, matches
from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Command, Forget, Memory, Origin, Remember, Target, View, Written
from soma_contract.recall import Hit, Leg, LegReport, LegState, RecallQuery, Signals, Summary
from soma_contract.tenant import Tenant, admin_tenant

TENANT = admin_tenant("acme", reason="tests")


@dataclass(frozen=True, slots=True)
class Read:
    """A stored hit that counts how often it is read."""

    hit: Hit
    reads: list[str]

    @property
    def memory_id(self) -> str:
        return self.hit.memory.memory_id

    @property
    def wire(self) -> object:
        return self.hit

    def read(self) -> Hit:
        self.reads.append(self.memory_id)
        return self.hit


@dataclass
class Shelf:
    """The LongTerm port: a dict, hits as given, and an outage at will."""

    memories: dict[str, Memory] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    outage: SomaError | None = None
    queries: list[RecallQuery] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    requests: dict[str, Written] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    async def write(
        self,
        tenant: Tenant,
        command: Command,
        *,
        origin: Origin | None = None,
        request_id: str | None = None,
        most_s: float | None = None,
    ) -> Written:
        self._check()
        if command.request_id in self.requests:
            return self.requests[command.request_id]
        match command:
            case Remember():
                self.memories[command.memory.memory_id] = command.memory
                written = Written(command.memory, len(self.requests) + 1, created=True)
            case Forget():
                self.memories.pop(command.target.memory_id, None)
                written = Written(None, len(self.requests) + 1)
            case _:
                raise AssertionError("not needed here")
        self.requests[command.request_id] = written
        return written

    async def get(
        self, tenant: Tenant, target: Target, *, view: View, as_of: datetime | None, allow_degraded: bool
    ) -> tuple[Memory, bool]:
        self._check()
        if target.memory_id not in self.memories:
            raise MemoryNotFoundError(memory_id=target.memory_id)
        return self.memories[target.memory_id], False

    async def batch_get(self, tenant: Tenant, targets: Sequence[Target], *, view: View) -> list[Memory | None]:
        self._check()
        return [self.memories.get(target.memory_id) for target in targets]

    async def list_memories(self, tenant: Tenant, filter: Filter, **rest: Any) -> MemoryList:
        self._check()
        return MemoryList(tuple(memory for memory in self.memories.values() if matches(filter, memory)))

    async def history(self, tenant: Tenant, memory_id: str, *, page_size: int, page_token: str) -> MemoryPast:
        self._check()
        return MemoryPast(())

    async def forget_matching(
        self, tenant: Tenant, filter: Filter, *, dry_run: bool, expected: int | None, request_id: str
    ) -> AsyncIterator[ForgottenSoFar]:
        self._check()
        yield ForgottenSoFar(0, 0, 0, final=True)

    async def recall(self, tenant: Tenant, query: RecallQuery) -> LongTermAnswer:
        self.queries.append(query)
        self._check()
        hits: list[StoredHit] = [Read(hit, self.reads) for hit in self.hits if hit.memory.memory_id not in self.gone]
        gone = tuple(each for each in query.recheck_ids if each in self.gone)
        legs = (LegReport(Leg.DENSE, LegState.RAN), LegReport(Leg.KEYWORD, LegState.RAN))
        return LongTermAnswer(tuple(hits[: query.limit]), Summary(legs, considered=len(hits), gone_ids=gone))

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage


def away() -> SomaError:
    """What an outage of the memory server looks like."""
    return ComponentUnavailableError(component="memory")


@dataclass
class Brain:
    """The use cases over one working memory, one outbox and one shelf."""

    shelf: Shelf
    working: WorkingMemory
    outbox: Outbox
    delivery: Delivery
    writes: OutboxWrites
    vectors: TextVectors
    remembering: Remembering
    recalling: Recalling
    observing: Observing
    promoting: Promoting

    @classmethod
    async def opened(cls, shelf: Shelf, entries: InMemoryOutbox, sessions: InMemorySessions) -> Brain:
        """A brain on what these stores hold; its delivery is to be entered."""
        clock = SystemClock()
        outbox = Outbox(entries, clock=clock, bounds=OutboxBounds(free_bytes=0))
        await outbox.load()
        delivery = Delivery(outbox, MemorySender(shelf), clock=clock)
        writes = OutboxWrites(outbox, delivery)
        vectors = TextVectors(HashingEmbedder())
        working = WorkingMemory(sessions, clock=clock)
        await working.load()
        remembering = Remembering(writes.submit, writes, shelf, encoded, clock)
        return cls(
            shelf,
            working,
            outbox,
            delivery,
            writes,
            vectors,
            remembering,
            Recalling(shelf, writes, WorkingLeg(working, clock), vectors, clock),
            Observing(working, vectors),
            Promoting(working, remembering, writes),
        )


async def observed(brain: Brain, *texts: str, session_id: str = "s", reward: float = 0.5) -> list[str]:
    """Observe texts in a session; return the ids of their items."""
    last = await brain.working.last_sequence(TENANT, session_id)
    messages = [Message(last + number, text=text, reward=reward) for number, text in enumerate(texts, start=1)]
    outcomes = await brain.observing.take(TENANT, session_id, last, messages)
    return [outcome.item.item_id if outcome.item else "" for outcome in outcomes]


async def recalled(brain: Brain, text: str = "", session_id: str = "s", **fields: Any) -> Answer:
    """Recall in a session."""
    query = RecallQuery(text=text, **fields)
    return await brain.recalling.recall(TENANT, query, namespace="default", session_id=session_id)


def texts(answer: Answer) -> list[str]:
    """The texts of the hits, best first."""
    return [read(hit).memory.text for hit in answer.hits]


def read(hit: Hit | StoredHit) -> Hit:
    """A hit, whoever it is from."""
    return hit if isinstance(hit, Hit) else cast("Hit", hit.wire)


def legs(answer: Answer) -> dict[Leg, LegState]:
    """What became of each leg."""
    return {report.leg: report.state for report in answer.summary.legs}


def stored_hit(text: str, score: float, cosine: float, **fields: Any) -> Hit:
    """A hit as a memory server would send it."""
    memory_id = fields.pop("memory_id", "") or keyed_memory_id("tests", text)
    return Hit(Memory(memory_id=memory_id, text=text, **fields), score, Signals(dense=cosine, keyword=0.5))

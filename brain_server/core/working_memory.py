"""Working memory of all tenants.

    answers = await working.observe(tenant, "session-7", observations)    # after the fsync
    hits = await working.recall(tenant, "session-7", query_vector, "what was the error", limit=10)

Uses (recall, decay) are written down within a second; everything else before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict

from brain_server.core.session_keeping import SessionKeeper
from brain_server.domain.item import Item, Observation, Observed, Promotion, Recalled, SessionState, Vector
from brain_server.domain.salience import WorkingRules
from brain_server.domain.session import Session
from brain_server.ports import Clock, NoMetrics, SessionFile, SessionMirror, SessionName, SystemClock, WorkingMetrics
from soma_contract.errors import DimensionMismatchError, FieldViolationError, SomaError
from soma_contract.ids import new_memory_id
from soma_contract.tenant import Tenant
from soma_contract.text.analysis import analyzer

log = logging.getLogger(__name__)

Promote = Callable[[Tenant, str, Promotion], Awaitable[str]]
"""Writes an item of a session to long-term memory and returns the memory's id; raises SomaError."""

_TICK_S = 1.0
_MIRRORED_A_BEAT = 1_024


class WorkingMemory:
    """The sessions of one brain."""

    def __init__(
        self,
        file: SessionFile,
        *,
        rules: WorkingRules | None = None,
        clock: Clock | None = None,
        metrics: WorkingMetrics | None = None,
        mirror: SessionMirror | None = None,
        new_id: Callable[[], str] = new_memory_id,
        most_sessions: int = 10_000,
        most_bytes: int = 256 * 1024 * 1024,
        most_wide: int = 64,
    ) -> None:
        self._file = file
        self._metrics = metrics or NoMetrics()
        self._new_id = new_id
        self._keeper = SessionKeeper(
            file,
            mirror,
            clock or SystemClock(),
            self._metrics,
            default_rules=rules or WorkingRules(),
            most_sessions=most_sessions,
            most_bytes=most_bytes,
            most_wide=most_wide,
        )

    async def start(self) -> int:
        """Learn which sessions the file has and return how many; each comes back when it is touched."""
        contents = await self._file.load()
        self._keeper.rules.update({tenant: WorkingRules(**json.loads(text)) for tenant, text in contents.rules})
        self._keeper.know(contents.names)
        return len(contents.names)

    async def load(self) -> int:
        """Start, and bring back the sessions used last, as many as the bounds allow; return how many."""
        await self.start()
        return await self._keeper.warm()

    @property
    def held(self) -> tuple[int, int]:
        """How many sessions are in memory, and their bytes."""
        return len(self._keeper), self._keeper.bytes_held

    # --- rules ------------------------------------------------------------------------------------

    def rules(self, tenant: Tenant) -> WorkingRules:
        """Return how a tenant's working memory behaves."""
        return self._keeper.rules_of(tenant)

    async def configure(self, tenant: Tenant, rules: WorkingRules) -> None:
        """Change how a tenant's working memory behaves, in its open sessions too."""
        self._keeper.rules[tenant] = rules
        await self._file.save_rules(tenant, json.dumps(asdict(rules)))
        for name, session in self._keeper.all_held(tenant):
            evicted = session.configure(rules, self._keeper.now_s())
            self._metrics.wm_evicted(len(evicted))
            self._keeper.used(name, session)
            await self._keeper.save(name, session)

    # --- the verbs --------------------------------------------------------------------------------

    async def open(self, tenant: Tenant, session_id: str, persona_id: str = "") -> bool:
        """Begin or resume a session, durably; return whether it was there.

        Raises FieldViolationError if it belongs to another persona.
        """
        name = SessionName(tenant, session_id)
        session = await self._keeper.touch(name)
        existed = session is not None
        if session is None:
            session = self._keeper.keep(name, Session(session_id, 0, self.rules(tenant)))
        if persona_id and session.persona_id not in ("", persona_id):
            raise FieldViolationError.at("opening.persona_id", f"this session is of {session.persona_id!r}")
        if not existed or (persona_id and not session.persona_id):
            session.persona_id = persona_id
            await self._keeper.save(name, session)
        return existed

    async def observe(self, tenant: Tenant, session_id: str, observations: Sequence[Observation]) -> list[Observed]:
        """Take in observations and return, after the fsync, what became of each.

        All vectors have the length of the session's; raises DimensionMismatchError otherwise.
        """
        if not observations:
            return []
        name = SessionName(tenant, session_id)
        session = await self._keeper.touch(name)
        dimensions = len(observations[0].vector)
        if session is None or (not len(session) and session.slots.dimensions != dimensions):
            empty = Session(session_id, 0, self.rules(tenant)) if session is None else session
            session = self._keeper.keep(name, empty.of_length(dimensions))
        for observation in observations:
            _check_length(session, observation.vector)
        answers = session.observe(observations, self._keeper.now_s(), self._new_id)
        self._count(answers)
        self._keeper.used(name, session)
        # Repetitions wait too: what they repeat may still be on its way to the disk.
        await self._keeper.save(name, session)
        return answers

    async def recall(
        self,
        tenant: Tenant,
        session_id: str,
        query: Vector | None,
        text: str = "",
        limit: int = 10,
        *,
        use: bool = True,
    ) -> list[Recalled]:
        """Return the session's items that answer best, best first; none for a session that does not exist.

        That counts as a use of each, unless the caller says later, by `use`, which of them were.
        """
        name = SessionName(tenant, session_id)
        session = await self._keeper.touch(name)
        if session is None or not len(session):
            return []
        if query is not None:
            _check_length(session, query)
        words = analyzer()
        terms = words.terms(text) if text else ()
        recalled = session.recall(query, terms, limit, self._keeper.now_s(), words.terms, use=use)
        if use:
            self._keeper.used(name, session)
        return recalled

    async def use(
        self, tenant: Tenant, session_id: str, item_ids: Iterable[str], long_term_ids: Iterable[str] = ()
    ) -> int:
        """Count a use of items, and of those that became the memories named; return how many."""
        name = SessionName(tenant, session_id)
        session = await self._keeper.touch(name)
        used = session.use(item_ids, long_term_ids, self._keeper.now_s()) if session is not None else 0
        if session is not None and used:
            self._keeper.used(name, session)
        return used

    async def exists(self, tenant: Tenant, session_id: str) -> bool:
        """Return whether there is such a session, here or at the mirror."""
        return await self._keeper.touch(SessionName(tenant, session_id)) is not None

    async def count(self, tenant: Tenant, session_id: str) -> int:
        """Return how many items a session has; none for one that does not exist."""
        session = await self._keeper.touch(SessionName(tenant, session_id))
        return len(session) if session is not None else 0

    async def persona(self, tenant: Tenant, session_id: str) -> str:
        """Return whose memories promoted items become; raises SessionNotFoundError."""
        return (await self._keeper.existing(SessionName(tenant, session_id))).persona_id

    async def items(self, tenant: Tenant, session_id: str) -> list[Item]:
        """Return a session's items in the order of their admission; raises SessionNotFoundError."""
        session = await self._keeper.existing(SessionName(tenant, session_id))
        return session.items(self._keeper.now_s())

    async def found(self, tenant: Tenant, session_id: str, item_ids: Iterable[str]) -> dict[str, Item]:
        """Return those of the named items that are present, by id."""
        session = await self._keeper.touch(SessionName(tenant, session_id))
        return session.found(item_ids, self._keeper.now_s()) if session is not None else {}

    async def made_by(self, tenant: Tenant, session_id: str, sequences: Iterable[int]) -> dict[int, Item]:
        """Return the items that observations of these numbers made, as far as they are present."""
        session = await self._keeper.touch(SessionName(tenant, session_id))
        return session.made_by(sequences, self._keeper.now_s()) if session is not None else {}

    async def last_sequence(self, tenant: Tenant, session_id: str) -> int:
        """Return the number of the last observation taken, from which a stream resumes; 0 for a new session."""
        session = await self._keeper.touch(SessionName(tenant, session_id))
        return session.last_sequence if session is not None else 0

    async def close(self, tenant: Tenant, session_id: str) -> None:
        """End a session and remove its items; raises SessionNotFoundError."""
        name = SessionName(tenant, session_id)
        await self._keeper.existing(name)
        await self._keeper.close(name)

    # --- promotion --------------------------------------------------------------------------------

    async def tick(self, tenant: Tenant, session_id: str) -> list[Promotion]:
        """Count one tick of a session and return what has earned promotion; give each to `promote`."""
        name = SessionName(tenant, session_id)
        return self._tick(name, await self._keeper.existing(name))

    def tick_hot(self) -> list[tuple[SessionName, Promotion]]:
        """Count one tick of every session in memory that it matters to; return what has earned promotion."""
        held = [(name, self._keeper.held(name)) for name in [*self._keeper.hot]]
        return [(name, each) for name, session in held if session is not None for each in self._tick(name, session)]

    async def ask_promotion(self, tenant: Tenant, session_id: str, item_ids: Iterable[str]) -> list[Promotion]:
        """Return the named items that are not in long-term memory yet; give each to `promote`."""
        session = await self._keeper.existing(SessionName(tenant, session_id))
        return session.ask_promotion(item_ids, self._keeper.now_s())

    async def promote(self, name: SessionName, promotion: Promotion, promote: Promote) -> str:
        """Write an item to long-term memory and keep its id there; return it, or raise what `promote` raised."""
        long_term_id = ""
        try:
            long_term_id = await promote(name.tenant, name.session_id, promotion)
        finally:
            self._metrics.wm_promoted(promotion.reason, succeeded=bool(long_term_id))
            session = await self._keeper.touch(name)
            if session is not None:
                session.promoted(promotion.item.item_id, long_term_id)
        if session is not None:
            await self._keeper.save(name, session)
        return long_term_id

    def long_term_ids(self, tenant: Tenant, session_id: str) -> list[str]:
        """Return the memories that items of a session in memory became, to be asked after with its next recall."""
        session = self._keeper.held(SessionName(tenant, session_id))
        return [*session.slots.by_long_term] if session is not None else []

    def memories(self) -> dict[Tenant, set[str]]:
        """Return the memories that items of sessions in memory became, by tenant, the tenant used last at the end."""
        found: dict[Tenant, set[str]] = {}
        for name, session in self._keeper.all_held():
            if became := session.slots.by_long_term:
                found[name.tenant] = found.pop(name.tenant, set()).union(became)
        return found

    async def forget(self, tenant: Tenant, long_term_ids: Sequence[str]) -> int:
        """Remove the items of forgotten memories from every session of a tenant; return how many were in memory."""
        dropped = 0
        for name, session in self._keeper.all_held(tenant):
            if gone := session.drop_long_term(long_term_ids):
                dropped += len(gone)
                self._keeper.resized(name, session)
                self._keeper.to_mirror[name] = None
        await self._file.drop_long_term(tenant, long_term_ids)
        return dropped

    async def erase(self, tenant: Tenant) -> None:
        """Remove everything of a tenant."""
        self._keeper.forget_tenant(tenant)
        await self._file.drop_tenant(tenant)

    # --- hand-over and housekeeping ---------------------------------------------------------------

    async def snapshot(self, tenant: Tenant, session_id: str) -> SessionState:
        """Return a whole session for another brain; raises SessionNotFoundError."""
        return (await self._keeper.existing(SessionName(tenant, session_id))).state()

    async def restore(self, tenant: Tenant, state: SessionState) -> None:
        """Take a session over from another brain, in place of what is here."""
        await self._keeper.adopt(SessionName(tenant, state.session_id), state)

    async def beat(self, promote: Promote) -> None:
        """Do what is due every second: tick, promote, write down uses, hand snapshots to the mirror."""
        await self._tick_and_promote(promote)
        await self._hand_over()

    async def run(self, promote: Promote) -> None:
        """Bring sessions back, then do what is due every second until cancelled; a slow mirror delays no tick."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keeper.warm())
            group.create_task(_every_second(lambda: self._tick_and_promote(promote)))
            group.create_task(_every_second(self._hand_over))

    async def _tick_and_promote(self, promote: Promote) -> None:
        for name, promotion in self.tick_hot():
            try:
                await self.promote(name, promotion, promote)
            except SomaError as error:
                log.warning("an item could not be promoted now: %s", error.reason)
        self._keeper.flush()

    async def _hand_over(self) -> None:
        try:
            await self._keeper.give_up_lost()
        except SomaError:
            return
        await self._keeper.mirror_changed(_MIRRORED_A_BEAT)

    async def drain(self) -> None:
        """Write down and hand over everything, before a graceful stop."""
        self._keeper.flush()
        await self._keeper.mirror_changed(len(self._keeper.to_mirror))

    def _tick(self, name: SessionName, session: Session) -> list[Promotion]:
        now_s = self._keeper.now_s()
        promotions = session.tick(now_s)
        if session.is_hot(now_s):
            self._keeper.hot.add(name)
        else:
            self._keeper.hot.discard(name)
        return promotions

    def _count(self, answers: Sequence[Observed]) -> None:
        for verdict, count in Counter(answer.verdict for answer in answers).items():
            self._metrics.wm_observed(verdict.name.lower(), count)
        if evicted := sum(bool(answer.evicted) for answer in answers):
            self._metrics.wm_evicted(evicted)


async def _every_second(due: Callable[[], Awaitable[None]]) -> None:
    while True:
        await due()
        await asyncio.sleep(_TICK_S)


def _check_length(session: Session, vector: Vector) -> None:
    if len(vector) != session.slots.dimensions:
        raise DimensionMismatchError(expected=str(session.slots.dimensions), actual=str(len(vector)))

"""Working memory of all tenants: which sessions are in memory, and that what was acknowledged is on the disk.

    answers = await working.observe(tenant, "session-7", observations)    # after the fsync
    hits = await working.recall(tenant, "session-7", query_vector, "what was the error", limit=10)

Sessions beyond the bounds are dropped from memory, least recently used first, and come back from the file when they
are touched.  Uses (recall, decay) are written down within a second; everything else before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict

from brain_server.domain.item import Item, Observation, Observed, Promotion, Recalled, SessionState, Vector
from brain_server.domain.salience import WorkingRules
from brain_server.domain.session import Session, compacted
from brain_server.ports import Clock, NoMetrics, SessionFile, SessionMirror, SessionName, SystemClock, WorkingMetrics
from soma_contract.errors import DimensionMismatchError, SessionNotFoundError, SomaError
from soma_contract.ids import new_memory_id
from soma_contract.tenant import Tenant
from soma_contract.text.analysis import analyzer

log = logging.getLogger(__name__)

Promote = Callable[[Tenant, str, Promotion], Awaitable[str]]
"""Writes an item to long-term memory and returns the memory's id; raises SomaError."""

_TICK_S = 1.0
_MIRRORED_AT_ONCE = 64
_REMEMBERED_ABSENCES = 10_000


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
        self._default_rules = rules or WorkingRules()
        self._clock = clock or SystemClock()
        self._metrics = metrics or NoMetrics()
        self._mirror = mirror
        self._new_id = new_id
        self._most_sessions = most_sessions
        self._most_bytes = most_bytes
        self._most_wide = most_wide
        self._rules: dict[Tenant, WorkingRules] = {}
        self._sessions: OrderedDict[SessionName, Session] = OrderedDict()
        self._sizes: dict[SessionName, int] = {}
        self._bytes = 0
        self._wide: OrderedDict[SessionName, None] = OrderedDict()
        self._on_file: set[SessionName] = set()
        self._absent: OrderedDict[SessionName, None] = OrderedDict()
        self._loading: dict[SessionName, asyncio.Future[Session | None]] = {}
        self._hot: set[SessionName] = set()
        self._used: set[SessionName] = set()
        self._to_mirror: OrderedDict[SessionName, None] = OrderedDict()
        # Monotonic within this process, anchored to the wall clock once: decay never runs backwards.
        self._anchor_s = self._clock.now().timestamp() - self._clock.monotonic()

    async def load(self) -> int:
        """Bring back the sessions used last, as many as the bounds allow; return how many."""
        contents = await self._file.load(self._most_sessions, self._most_bytes)
        self._rules.update({tenant: WorkingRules(**json.loads(text)) for tenant, text in contents.rules})
        self._on_file.update(contents.names)
        for name, state in reversed(contents.loaded):
            self._keep(name, Session.restored(state, self.rules(name.tenant)))
        self._report()
        return len(contents.loaded)

    # --- rules ------------------------------------------------------------------------------------

    def rules(self, tenant: Tenant) -> WorkingRules:
        """Return how a tenant's working memory behaves."""
        return self._rules.get(tenant, self._default_rules)

    async def configure(self, tenant: Tenant, rules: WorkingRules) -> None:
        """Change how a tenant's working memory behaves, in its open sessions too."""
        self._rules[tenant] = rules
        await self._file.save_rules(tenant, json.dumps(asdict(rules)))
        for name, session in [*self._sessions.items()]:
            if name.tenant == tenant:
                evicted = session.configure(rules, self._now_s())
                self._metrics.wm_evicted(len(evicted))
                self._used.add(name)
                await self._save(name, session)

    # --- the verbs --------------------------------------------------------------------------------

    async def observe(self, tenant: Tenant, session_id: str, observations: Sequence[Observation]) -> list[Observed]:
        """Take in observations and return, after the fsync, what became of each.

        All vectors have the length of the session's; raises DimensionMismatchError otherwise.
        """
        if not observations:
            return []
        name = SessionName(tenant, session_id)
        dimensions = len(observations[0].vector)
        session = await self._touch(name)
        if session is None or (not len(session) and session.slots.dimensions != dimensions):
            last_sequence = session.last_sequence if session is not None else 0
            session = Session(session_id, dimensions, self.rules(tenant))
            session.last_sequence = last_sequence
            self._keep(name, session)
        for observation in observations:
            if len(observation.vector) != session.slots.dimensions:
                expected, actual = str(session.slots.dimensions), str(len(observation.vector))
                raise DimensionMismatchError(expected=expected, actual=actual)
        now_s = self._now_s()
        answers = session.observe(observations, now_s, self._new_id)
        self._count(answers)
        self._after_use(name, session, now_s)
        # Repetitions wait too: what they repeat may still be on its way to the disk.
        await self._save(name, session)
        return answers

    async def recall(
        self, tenant: Tenant, session_id: str, query: Vector | None, text: str = "", limit: int = 10
    ) -> list[Recalled]:
        """Return the session's items that answer best, best first; none for a session that does not exist."""
        name = SessionName(tenant, session_id)
        session = await self._touch(name)
        if session is None or not len(session):
            return []
        if query is not None and len(query) != session.slots.dimensions:
            raise DimensionMismatchError(expected=str(session.slots.dimensions), actual=str(len(query)))
        now_s = self._now_s()
        words = analyzer()
        recalled = session.recall(query, words.terms(text) if text else (), limit, now_s, words.terms)
        self._after_use(name, session, now_s)
        return recalled

    async def items(self, tenant: Tenant, session_id: str) -> list[Item]:
        """Return a session's items in the order of their admission; raises SessionNotFoundError."""
        return (await self._existing(tenant, session_id)).items(self._now_s())

    async def last_sequence(self, tenant: Tenant, session_id: str) -> int:
        """Return the number of the last observation taken, from which a stream resumes; 0 for a new session."""
        session = await self._touch(SessionName(tenant, session_id))
        return session.last_sequence if session is not None else 0

    async def close(self, tenant: Tenant, session_id: str) -> None:
        """End a session and remove its items; raises SessionNotFoundError."""
        await self._existing(tenant, session_id)
        name = SessionName(tenant, session_id)
        self._drop(name)
        self._on_file.discard(name)
        self._to_mirror[name] = None
        await self._file.drop_session(tenant, session_id)

    # --- promotion --------------------------------------------------------------------------------

    async def tick(self, tenant: Tenant, session_id: str) -> list[Promotion]:
        """Count one tick of a session and return what has earned promotion; see `promote`."""
        session = await self._existing(tenant, session_id)
        return self._tick(SessionName(tenant, session_id), session)

    def tick_hot(self) -> list[tuple[SessionName, Promotion]]:
        """Count one tick of every session in memory that a tick matters to; return what has earned promotion."""
        ticked = [(name, self._sessions[name]) for name in [*self._hot] if name in self._sessions]
        return [(name, promotion) for name, session in ticked for promotion in self._tick(name, session)]

    async def ask_promotion(self, tenant: Tenant, session_id: str, item_ids: Iterable[str]) -> list[Promotion]:
        """Return the named items that are not in long-term memory yet, to be promoted; see `promote`."""
        session = await self._existing(tenant, session_id)
        return session.ask_promotion(item_ids, self._now_s())

    async def promote(self, name: SessionName, promotion: Promotion, promote: Promote) -> str:
        """Write an item to long-term memory and remember its id there; return it, or raise what `promote` raised."""
        long_term_id = ""
        try:
            long_term_id = await promote(name.tenant, name.session_id, promotion)
        finally:
            self._metrics.wm_promoted(promotion.reason, succeeded=bool(long_term_id))
            session = await self._touch(name)
            if session is not None:
                session.promoted(promotion.item.item_id, long_term_id)
        if session is not None:
            await self._save(name, session)
        return long_term_id

    async def use_long_term(self, tenant: Tenant, session_id: str, long_term_ids: Iterable[str]) -> int:
        """Count a recall of long-term memories as a use of the items that became them; return how many."""
        name = SessionName(tenant, session_id)
        session = await self._touch(name)
        if session is None:
            return 0
        now_s = self._now_s()
        used = session.use_long_term(long_term_ids, now_s)
        if used:
            self._after_use(name, session, now_s)
        return used

    async def forget(self, tenant: Tenant, long_term_ids: Sequence[str]) -> int:
        """Remove the items of forgotten memories from every session of a tenant; return how many were in memory."""
        dropped = 0
        for name, session in self._sessions.items():
            if name.tenant == tenant:
                gone = session.drop_long_term(long_term_ids)
                dropped += len(gone)
                if gone:
                    self._resize(name, session)
                    self._to_mirror[name] = None
        await self._file.drop_long_term(tenant, long_term_ids)
        return dropped

    async def erase(self, tenant: Tenant) -> None:
        """Remove everything of a tenant."""
        for name in [name for name in self._sessions if name.tenant == tenant]:
            self._drop(name)
        self._on_file = {name for name in self._on_file if name.tenant != tenant}
        for name in [name for name in self._to_mirror if name.tenant == tenant]:
            del self._to_mirror[name]
        self._rules.pop(tenant, None)
        await self._file.drop_tenant(tenant)

    # --- hand-over --------------------------------------------------------------------------------

    async def snapshot(self, tenant: Tenant, session_id: str) -> SessionState:
        """Return a whole session for another brain; raises SessionNotFoundError."""
        return (await self._existing(tenant, session_id)).state()

    async def restore(self, tenant: Tenant, state: SessionState) -> None:
        """Take a session over from another brain, in place of what is here."""
        name = SessionName(tenant, state.session_id)
        self._drop(name)
        await self._file.drop_session(tenant, state.session_id)
        session = Session.restored(compacted(state), self.rules(tenant))
        session.slots.changed.update(session.slots.by_id.values())
        self._keep(name, session)
        await self._save(name, session, mirror=False)

    async def beat(self, promote: Promote) -> None:
        """Do what is due every second: tick, promote, write down uses, hand snapshots to the mirror."""
        for name, promotion in self.tick_hot():
            try:
                await self.promote(name, promotion, promote)
            except SomaError as error:
                log.warning("an item could not be promoted now: %s", error.reason)
        self.flush()
        await self._mirror_changed(_MIRRORED_AT_ONCE)

    async def run(self, promote: Promote) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat(promote)
            await asyncio.sleep(_TICK_S)

    async def drain(self) -> None:
        """Write down and hand over everything, before a graceful stop."""
        self.flush()
        await self._mirror_changed(len(self._to_mirror))

    def flush(self) -> None:
        """Write down the uses of all sessions."""
        for name in self._used:
            if session := self._sessions.get(name):
                self._flush(name, session)
        self._used.clear()

    # --- sessions in memory -----------------------------------------------------------------------

    def _now_s(self) -> float:
        return self._anchor_s + self._clock.monotonic()

    async def _existing(self, tenant: Tenant, session_id: str) -> Session:
        session = await self._touch(SessionName(tenant, session_id))
        if session is None:
            raise SessionNotFoundError(session_id=session_id)
        return session

    async def _touch(self, name: SessionName) -> Session | None:
        """Return a session as the one used last, from memory, the file or the mirror, or None."""
        session = self._sessions.get(name)
        if session is not None:
            self._sessions.move_to_end(name)
            return session
        if name in self._loading:
            return await asyncio.shield(self._loading[name])
        if name not in self._on_file and (self._mirror is None or name in self._absent):
            return None
        loading = self._loading[name] = asyncio.get_running_loop().create_future()
        try:
            session = await self._fetch(name)
            loading.set_result(session)
        except BaseException as error:
            loading.set_exception(error if isinstance(error, Exception) else SessionNotFoundError())
            loading.exception()
            raise
        finally:
            del self._loading[name]
        return session

    async def _fetch(self, name: SessionName) -> Session | None:
        state = None
        if name in self._on_file:
            state = await self._file.session(name.tenant, name.session_id)
        elif self._mirror is not None:
            try:
                state = await self._mirror.fetch(name.tenant, name.session_id)
            except SomaError as error:
                log.warning("a session could not be looked up at the memory server: %s", error.reason)
                return None
            if state is not None:
                await self.restore(name.tenant, state)
                return self._sessions.get(name)
        if state is None:
            self._absent[name] = None
            if len(self._absent) > _REMEMBERED_ABSENCES:
                self._absent.popitem(last=False)
            return None
        return self._keep(name, Session.restored(state, self.rules(name.tenant)))

    def _keep(self, name: SessionName, session: Session) -> Session:
        self._sessions[name] = session
        self._sessions.move_to_end(name)
        self._absent.pop(name, None)
        self._resize(name, session)
        if session.is_hot(self._now_s()):
            self._hot.add(name)
        self._spill(name)
        return session

    def _resize(self, name: SessionName, session: Session) -> None:
        size = session.slots.nbytes
        self._bytes += size - self._sizes.get(name, 0)
        self._sizes[name] = size

    def _spill(self, keep: SessionName) -> None:
        """Drop sessions from memory, least recently used first, until the bounds hold."""
        for name in [*self._sessions] if self._is_over() else ():
            if not self._is_over():
                break
            session = self._sessions[name]
            # What could not be written down yet must not be dropped.
            if name != keep and not session.slots.changed and not session.slots.emptied:
                self._flush(name, session)
                self._drop(name)
        self._report()

    def _is_over(self) -> bool:
        return self._bytes > self._most_bytes or len(self._sessions) > self._most_sessions

    def _drop(self, name: SessionName) -> None:
        self._sessions.pop(name, None)
        self._bytes -= self._sizes.pop(name, 0)
        self._wide.pop(name, None)
        self._hot.discard(name)
        self._used.discard(name)

    def _after_use(self, name: SessionName, session: Session, now_s: float) -> None:
        self._used.add(name)
        self._wide[name] = None
        self._wide.move_to_end(name)
        while len(self._wide) > self._most_wide:
            oldest, _ = self._wide.popitem(last=False)
            if oldest in self._sessions:
                self._sessions[oldest].slots.narrow()
        if session.is_hot(now_s):
            self._hot.add(name)
        self._to_mirror[name] = None
        self._resize(name, session)
        self._spill(name)

    def _tick(self, name: SessionName, session: Session) -> list[Promotion]:
        now_s = self._now_s()
        promotions = session.tick(now_s)
        if session.is_hot(now_s):
            self._hot.add(name)
        else:
            self._hot.discard(name)
        return promotions

    # --- writing down -----------------------------------------------------------------------------

    async def _save(self, name: SessionName, session: Session, *, mirror: bool = True) -> None:
        """Write down what changed and wait for the fsync; what fails stays to be written with the next change."""
        slots = session.slots
        changed, emptied = sorted(slots.changed), sorted(slots.emptied)
        change = SessionState(name.session_id, session.last_sequence, session.touched_s, tuple(slots.stored(changed)))
        slots.used.difference_update(changed)
        slots.changed.clear()
        slots.emptied.clear()
        if mirror:
            self._to_mirror[name] = None
        try:
            await asyncio.shield(self._file.save(name.tenant, change, emptied))
        except SomaError:
            slots.changed.update(slot for slot in changed if slots.held[slot] is not None)
            slots.emptied.update(slot for slot in emptied if slots.held[slot] is None)
            raise
        self._on_file.add(name)

    def _flush(self, name: SessionName, session: Session) -> None:
        used = sorted(session.slots.used - session.slots.changed)
        if used:
            self._file.save_salience(name.tenant, name.session_id, session.slots.stored_salience(used))
        session.slots.used.clear()

    async def _mirror_changed(self, most: int) -> None:
        if self._mirror is None:
            self._to_mirror.clear()
            return
        for _ in range(min(most, len(self._to_mirror))):
            name, _none = self._to_mirror.popitem(last=False)
            session = self._sessions.get(name)
            state = session.state() if session is not None else SessionState(name.session_id, 0, self._now_s(), ())
            if session is None and name in self._on_file:
                state = await self._file.session(name.tenant, name.session_id) or state
            try:
                await self._mirror.put(name.tenant, state)
            except SomaError:
                self._to_mirror[name] = None
                return

    def _count(self, answers: Sequence[Observed]) -> None:
        for verdict, count in Counter(answer.verdict for answer in answers).items():
            self._metrics.wm_observed(verdict.name.lower(), count)
        evicted = sum(bool(answer.evicted) for answer in answers)
        if evicted:
            self._metrics.wm_evicted(evicted)

    def _report(self) -> None:
        self._metrics.wm_held(len(self._sessions), self._bytes)

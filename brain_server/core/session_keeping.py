"""Which sessions are in memory, and that what they promise is on the disk.

Sessions beyond the bounds leave memory, least recently used first, and come back from the file when they are touched;
one that is not on the file is asked for at the mirror, where another brain may have left it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress

from brain_server.core.absences import Absences
from brain_server.domain.handing_over import compacted, merged
from brain_server.domain.item import SessionState
from brain_server.domain.salience import WorkingRules
from brain_server.domain.session import Session
from brain_server.ports import Clock, SessionFile, SessionMirror, SessionName, WorkingMetrics
from soma_contract.errors import SessionNotFoundError, SomaError
from soma_contract.tenant import Tenant

log = logging.getLogger(__name__)

_LOADED_AT_ONCE = 32
_MIRRORED_AT_ONCE = 8
_CLOSING_S = 2.0
_ASKED_S = 2.0
"""How long the first use of a session after a start waits to hear whether another brain has it now."""
"""How long the end of a session waits for its snapshot to be removed; later it is tried again."""


class SessionKeeper:
    """Sessions by name, bounded in number and bytes."""

    def __init__(
        self,
        file: SessionFile,
        mirror: SessionMirror | None,
        clock: Clock,
        metrics: WorkingMetrics,
        *,
        default_rules: WorkingRules,
        most_sessions: int,
        most_bytes: int,
        most_wide: int,
    ) -> None:
        self.file = file
        self.rules: dict[Tenant, WorkingRules] = {}
        self.hot: set[SessionName] = set()
        """Sessions that a tick matters to."""
        self.to_mirror: OrderedDict[SessionName, None] = OrderedDict()
        """Sessions that changed since their last snapshot."""
        self.bytes_held = 0
        self._default_rules = default_rules
        self._mirror = mirror
        self._clock = clock
        self._metrics = metrics
        self._most_sessions = most_sessions
        self._most_bytes = most_bytes
        self._most_wide = most_wide
        self._sessions: OrderedDict[SessionName, Session] = OrderedDict()
        self._sizes: dict[SessionName, int] = {}
        self._wide: OrderedDict[SessionName, None] = OrderedDict()
        self._used: set[SessionName] = set()
        self._on_file: set[SessionName] = set()
        self._absences = Absences()
        self._to_warm: dict[SessionName, None] = {}
        """Sessions on the file that were not touched since the start, last used first."""
        self._to_check: set[Tenant] = set()
        """Tenants with sessions on the file that other brains may have taken over while this one was down."""
        self._unasked: set[Tenant] = set()
        """Of these, the tenants whose sessions nobody has used yet."""
        self._loading: dict[SessionName, asyncio.Future[None]] = {}
        # Monotonic within this process, anchored to the wall clock once: decay never runs backwards.
        self._anchor_s = clock.now().timestamp() - clock.monotonic()

    def __len__(self) -> int:
        return len(self._sessions)

    def now_s(self) -> float:
        """Return Unix seconds that never go back."""
        return self._anchor_s + self._clock.monotonic()

    def rules_of(self, tenant: Tenant) -> WorkingRules:
        """Return how a tenant's working memory behaves."""
        return self.rules.get(tenant, self._default_rules)

    def know(self, names: tuple[SessionName, ...]) -> None:
        """Take in which sessions the file has, given with the last used first; each comes back when it is touched."""
        self._on_file.update(names)
        self._to_warm.update(dict.fromkeys(names[: self._most_sessions]))
        self._to_check.update(name.tenant for name in names)
        if self._mirror is not None:
            self._unasked.update(self._to_check)

    async def warm(self) -> int:
        """Bring back sessions that nobody has touched yet, as many as fit; return how many are in memory."""
        while self._to_warm:
            some = [*self._to_warm][:_LOADED_AT_ONCE]
            states = await asyncio.gather(*(self.file.session(name.tenant, name.session_id) for name in some))
            for name, state in zip(some, states, strict=True):
                # Touched meanwhile: what was read may be old.
                if name not in self._to_warm or state is None:
                    self._to_warm.pop(name, None)
                    continue
                del self._to_warm[name]
                session = Session.restored(state, self.rules_of(name.tenant))
                if self.bytes_held + session.slots.nbytes > self._most_bytes or len(self) >= self._most_sessions:
                    self._to_warm.clear()
                    break
                self.keep(name, session)
                # The last used is to be the last to leave.
                self._sessions.move_to_end(name, last=False)
        return len(self._sessions)

    # --- finding ----------------------------------------------------------------------------------

    async def touch(self, name: SessionName) -> Session | None:
        """Return a session as the one used last, from memory, the file or the mirror, or None."""
        if name.tenant in self._unasked and name in self._on_file:
            await self._ask_about(name.tenant)
        while loading := self._loading.get(name):
            # Whatever comes of it, look again: whoever began it may have been cancelled.
            await asyncio.wait([loading])
        session = self._sessions.get(name)
        if session is not None:
            self._sessions.move_to_end(name)
            return session
        if name not in self._on_file and (self._mirror is None or self._absences.has(name, self.now_s())):
            return None
        loading = self._loading[name] = asyncio.get_running_loop().create_future()
        try:
            return await self._fetch(name)
        finally:
            del self._loading[name]
            loading.set_result(None)

    async def existing(self, name: SessionName) -> Session:
        """Return a session as the one used last; raises SessionNotFoundError."""
        session = await self.touch(name)
        if session is None:
            raise SessionNotFoundError(session_id=name.session_id)
        return session

    def all_held(self, tenant: Tenant | None = None) -> list[tuple[SessionName, Session]]:
        """Return the sessions in memory, of one tenant or all, the one used last at the end."""
        return [each for each in self._sessions.items() if tenant is None or each[0].tenant == tenant]

    def held(self, name: SessionName) -> Session | None:
        """Return a session if it is in memory; that is no use of it."""
        return self._sessions.get(name)

    async def _ask_about(self, tenant: Tenant) -> None:
        """Give up what other brains have taken over; where that cannot be asked, what the file has is used."""
        try:
            async with asyncio.timeout(_ASKED_S):
                await self._give_up_lost_of(tenant)
        except (SomaError, TimeoutError) as error:
            log.warning("whether other brains have a tenant's sessions now could not be asked: %s", error)
        # Not where the caller hung up: the next one asks again.
        self._unasked.discard(tenant)

    async def _fetch(self, name: SessionName) -> Session | None:
        if name in self._on_file:
            state = await self.file.session(name.tenant, name.session_id)
            if state is not None:
                return self.keep(name, Session.restored(state, self.rules_of(name.tenant)))
        elif self._mirror is not None:
            try:
                state = await self._mirror.fetch(name.tenant, name.session_id)
            except SomaError as error:
                log.warning("a session could not be looked up at the memory server: %s", error.reason)
                return None
            if state is not None and (state.items or state.last_sequence):
                return await self.adopt(name, state)
        self._absences.note(name, self.now_s())
        return None

    # --- keeping ----------------------------------------------------------------------------------

    def keep(self, name: SessionName, session: Session) -> Session:
        """Put a session in memory, as the one used last."""
        self._sessions[name] = session
        self._sessions.move_to_end(name)
        self._absences.end(name)
        self._to_warm.pop(name, None)
        self.resized(name, session)
        return session

    async def adopt(self, name: SessionName, state: SessionState) -> Session:
        """Take over a session that another brain wrote down, in place of what is here."""
        self.drop(name)
        await self.file.drop_session(name.tenant, name.session_id)
        session = Session.restored(compacted(state), self.rules_of(name.tenant))
        session.slots.changed.update(session.slots.by_id.values())
        self.keep(name, session)
        await self.save(name, session)
        self.to_mirror.pop(name, None)
        return session

    def used(self, name: SessionName, session: Session) -> None:
        """Take in that a session was used: its saliences changed, perhaps its items."""
        self._used.add(name)
        self.to_mirror[name] = None
        self._wide[name] = None
        self._wide.move_to_end(name)
        while len(self._wide) > self._most_wide:
            oldest = self._sessions.get(self._wide.popitem(last=False)[0])
            if oldest is not None:
                oldest.slots.narrow()
        self.resized(name, session)

    def resized(self, name: SessionName, session: Session) -> None:
        """Take in a session's size and heat; drop others from memory if the bounds ask for it."""
        if session.is_hot(self.now_s()):
            self.hot.add(name)
        size = session.slots.nbytes
        self.bytes_held += size - self._sizes.get(name, 0)
        self._sizes[name] = size
        for other in [*self._sessions] if self._is_over() else ():
            if not self._is_over():
                break
            spilled = self._sessions[other]
            # What could not be written down yet must not be dropped.
            if other != name and not spilled.slots.changed and not spilled.slots.emptied:
                self._flush(other, spilled)
                self.drop(other)
        self._metrics.wm_held(len(self._sessions), self.bytes_held)

    def drop(self, name: SessionName) -> None:
        """Remove a session from memory."""
        self._sessions.pop(name, None)
        self.bytes_held -= self._sizes.pop(name, 0)
        self._wide.pop(name, None)
        self.hot.discard(name)
        self._used.discard(name)

    def forget(self, name: SessionName) -> None:
        """Remove a session from memory for good: its rows are being removed too."""
        self.drop(name)
        self._to_warm.pop(name, None)
        self._on_file.discard(name)

    async def close(self, name: SessionName) -> None:
        """End a session: its rows and its snapshot go, and the snapshot brings it back no more."""
        self._absences.closed.add(name)
        self.forget(name)
        await self.file.drop_session(name.tenant, name.session_id)
        if self._mirror is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._mirrored(self._mirror, name), _CLOSING_S)

    def forget_tenant(self, tenant: Tenant) -> None:
        """Remove every session of a tenant for good."""
        for name in [name for name in (*self._on_file, *self._sessions) if name.tenant == tenant]:
            self.forget(name)
            self.to_mirror.pop(name, None)
        self.rules.pop(tenant, None)

    def _is_over(self) -> bool:
        return self.bytes_held > self._most_bytes or len(self._sessions) > self._most_sessions

    # --- writing down -----------------------------------------------------------------------------

    async def save(self, name: SessionName, session: Session) -> None:
        """Write down what changed and wait for the fsync; what fails stays to be written with the next change."""
        slots = session.slots
        changed, emptied = sorted(slots.changed), sorted(slots.emptied)
        change = SessionState(
            name.session_id,
            session.last_sequence,
            session.touched_s,
            tuple(slots.stored(changed)),
            session.persona_id,
            session.epoch,
        )
        slots.used.difference_update(changed)
        slots.changed.clear()
        slots.emptied.clear()
        self.to_mirror[name] = None
        try:
            await asyncio.shield(self.file.save(name.tenant, change, emptied))
        except SomaError:
            slots.changed.update(slot for slot in changed if slots.held[slot] is not None)
            slots.emptied.update(slot for slot in emptied if slots.held[slot] is None)
            raise
        self._on_file.add(name)

    def flush(self) -> None:
        """Write down the uses of all sessions soon."""
        for name in self._used:
            if session := self._sessions.get(name):
                self._flush(name, session)
        self._used.clear()

    async def mirror_changed(self, most: int) -> None:
        """Hand snapshots of changed sessions to the mirror, oldest change first, until it refuses."""
        if self._mirror is None:
            self.to_mirror.clear()
            return
        names = [*self.to_mirror][:most]
        for start in range(0, len(names), _MIRRORED_AT_ONCE):
            some = names[start : start + _MIRRORED_AT_ONCE]
            if not all(await asyncio.gather(*(self._mirrored(self._mirror, name) for name in some))):
                return

    async def give_up_lost(self) -> None:
        """Forget the sessions that other brains have taken over while this one was down; their snapshots are newer."""
        if self._mirror is None:
            self._to_check.clear()
        while self._mirror is not None and self._to_check:
            await self._give_up_lost_of(next(iter(self._to_check)))

    async def _give_up_lost_of(self, tenant: Tenant) -> None:
        if self._mirror is not None and tenant in self._to_check:
            for session_id in await self._mirror.lost(tenant):
                name = SessionName(tenant, session_id)
                if name in self._on_file:
                    await self._give_up(name)
        self._to_check.discard(tenant)
        self._unasked.discard(tenant)

    async def _mirrored(self, mirror: SessionMirror, name: SessionName) -> bool:
        """Hand over one session; return whether the mirror took part."""
        self.to_mirror.pop(name, None)
        try:
            if name in self._absences.closed:
                await mirror.drop(name.tenant, name.session_id)
                self._absences.closed.discard(name)
            session = self._sessions.get(name)
            state = session.state() if session is not None else None
            if state is None and name in self._on_file:
                state = await self.file.session(name.tenant, name.session_id)
            if state is None:
                return True
            epoch = await mirror.put(name.tenant, state)
            if epoch and session is not None:
                session.epoch = epoch
            elif not epoch:
                await self._settle_ownership(mirror, name, state)
        except SomaError:
            self.to_mirror[name] = None
            return False
        except BaseException:
            self.to_mirror[name] = None
            raise
        return True

    async def _settle_ownership(self, mirror: SessionMirror, name: SessionName, ours: SessionState) -> None:
        """The session is another brain's: it was taken over, or it was opened here while nobody could be asked."""
        if ours.epoch:
            log.warning("a session was taken over by another brain")
            await self._give_up(name)
            return
        theirs = await mirror.fetch(name.tenant, name.session_id)
        if theirs is not None:
            session = self._sessions.get(name)
            ours = session.state() if session is not None else ours
            await self.adopt(name, merged(theirs, ours, self.rules_of(name.tenant).capacity))
        self.to_mirror[name] = None

    async def _give_up(self, name: SessionName) -> None:
        self.forget(name)
        self.to_mirror.pop(name, None)
        await self.file.drop_session(name.tenant, name.session_id)

    def _flush(self, name: SessionName, session: Session) -> None:
        used = sorted(session.slots.used - session.slots.changed)
        if used:
            self.file.save_salience(name.tenant, name.session_id, session.slots.stored_salience(used))
        session.slots.used.clear()

"""What the brain needs from the outside, as Protocols; time and metrics are among them, so that tests rule both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from brain_server.domain.entry import Draft, Entry
from brain_server.domain.item import SessionState, StoredSalience
from brain_server.domain.persona import Personas
from brain_server.domain.settled import Settled
from soma_contract.memory import Command, Written
from soma_contract.tenant import Caller, Tenant


class Clock(Protocol):
    """Two clocks: one that only ever goes forward, for durations, and the wall's, for what is written down."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""

    def now(self) -> datetime:
        """Return the time of day in UTC."""


class SystemClock:
    """The clocks of the operating system."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the time of day in UTC."""
        return datetime.now(UTC)


class BreakerMetrics(Protocol):
    """Where breakers report; `level` is "dependency" or "tenant", never a tenant's name."""

    def breaker_changed(self, component: str, level: str, old: str, new: str) -> None:
        """A breaker went from one state to another: "closed", "open" or "half-open"."""

    def breaker_refused(self, component: str, level: str, method: str) -> None:
        """A call was not made because a breaker is open."""


@dataclass(frozen=True, slots=True)
class OutboxContents:
    """What an outbox's file held when it was opened, oldest entry first."""

    entries: tuple[Entry, ...] = ()
    epochs: dict[str, int] = field(default_factory=dict)
    last_sequence: int = 0
    settled: tuple[Settled, ...] = ()
    """Requests that were delivered lately, oldest first."""


class OutboxFile(Protocol):
    """Where the outbox keeps its entries; what an awaited method did survives a power cut."""

    @property
    def brain_id(self) -> str:
        """The name of this brain."""

    async def load(self) -> OutboxContents:
        """Return everything that is kept, without payloads."""

    def append(self, entry: Entry, payload: bytes) -> asyncio.Future[None]:
        """Begin to keep a new entry, in the order of the calls; what it returns is done after the fsync.

        That raises OutboxFullError on a full disk, ComponentUnavailableError on a broken one.
        """

    async def payload(self, entry: Entry) -> bytes:
        """Return the payload of a kept entry."""

    def digest(self, content: bytes) -> bytes:
        """Return 16 bytes that tell contents apart and reveal nothing."""

    def settle(self, entry: Entry, settled: Settled | None = None) -> None:
        """Drop an entry soon, and keep its request if one is given.

        If that is lost the entry is delivered again, which is harmless.
        """

    def forget_settled(self, before: datetime) -> None:
        """Let go, soon, of requests that were delivered before."""

    async def noted(self) -> None:
        """Wait until all that was to be done soon is done."""

    def mark(self, entry: Entry) -> None:
        """Write down an entry's state, attempts and rejection soon."""

    async def remark(self, entry: Entry) -> None:
        """Write down an entry's state, attempts and rejection."""

    async def discard(self, entry: Entry) -> None:
        """Drop an entry."""

    async def fence(self, tenant: Tenant, epoch: int) -> None:
        """Set a tenant's erasure epoch and drop its entries of earlier ones."""

    def free_bytes(self) -> int:
        """Return how much space is left for more."""


class OutboxMetrics(Protocol):
    """Where the outbox reports; no tenant is ever named."""

    def outbox_changed(self, pending: int, dead: int) -> None:
        """The number of pending entries or dead letters changed."""

    def outbox_refused(self, scope: str) -> None:
        """A write was refused because of a bound: "rows", "bytes" or "disk"."""

    def outbox_delivered(self, operation: str, waited_s: float) -> None:
        """An entry was stored, this long after it was appended."""

    def outbox_died(self, operation: str, reason: str) -> None:
        """An entry went to the dead-letter list."""


class Sender(Protocol):
    """The way of one entry to the long-term memory."""

    async def send(self, entry: Entry, payload: bytes) -> Any:
        """Store it and return the answer; raises SomaError. Sending twice has the effect of once."""


@dataclass(frozen=True, slots=True)
class SessionName:
    """A session of a tenant."""

    tenant: Tenant
    session_id: str


@dataclass(frozen=True, slots=True)
class SessionContents:
    """What the file holds of working memory: every session by name, last used first, and tenants' rules."""

    names: tuple[SessionName, ...] = ()
    rules: tuple[tuple[Tenant, str], ...] = ()


class SessionFile(Protocol):
    """Where working memory is written down, next to the outbox and on the same fsync."""

    async def load(self) -> SessionContents:
        """Return the names of all sessions, and the rules."""

    async def session(self, tenant: Tenant, session_id: str) -> SessionState | None:
        """Return one session, or None."""

    def save(self, tenant: Tenant, change: SessionState, emptied: Sequence[int]) -> asyncio.Future[None]:
        """Begin to write down the slots given and to remove others; what it returns is done after the fsync."""

    def save_salience(self, tenant: Tenant, session_id: str, saliences: Sequence[StoredSalience]) -> None:
        """Write down uses soon."""

    async def save_rules(self, tenant: Tenant, rules: str) -> None:
        """Write down how a tenant's working memory behaves."""

    async def drop_session(self, tenant: Tenant, session_id: str) -> None:
        """Remove a session."""

    async def drop_tenant(self, tenant: Tenant) -> None:
        """Remove every session of a tenant, and its rules."""

    async def drop_long_term(self, tenant: Tenant, long_term_ids: Sequence[str]) -> None:
        """Remove the items of forgotten memories from every session of a tenant."""


class SessionMirror(Protocol):
    """Where sessions are kept for other brains: the memory server."""

    async def fetch(self, tenant: Tenant, session_id: str) -> SessionState | None:
        """Take a session over: return its last snapshot, now this brain's, or None; raises SomaError."""

    async def put(self, tenant: Tenant, state: SessionState) -> int:
        """Keep a session's snapshot; return the epoch it is held under, 0 if the session is another brain's by now.

        Raises SomaError.
        """

    async def drop(self, tenant: Tenant, session_id: str) -> None:
        """Remove a session's snapshot; raises SomaError."""

    async def lost(self, tenant: Tenant) -> list[str]:
        """Return the sessions of a tenant that are other brains'; raises SomaError."""


class WorkingMetrics(Protocol):
    """Where working memory reports."""

    def wm_observed(self, verdict: str, count: int) -> None:
        """So many observations were admitted, refreshed, ignored or repeated."""

    def wm_evicted(self, count: int) -> None:
        """So many items had to go."""

    def wm_promoted(self, reason: str, *, succeeded: bool) -> None:
        """An item was promoted, or could not be."""

    def wm_held(self, sessions: int, held_bytes: int) -> None:
        """So many sessions are in memory."""


class NoMetrics:
    """Reports nothing."""

    def breaker_changed(self, component: str, level: str, old: str, new: str) -> None:
        """Ignore it."""

    def breaker_refused(self, component: str, level: str, method: str) -> None:
        """Ignore it."""

    def outbox_changed(self, pending: int, dead: int) -> None:
        """Ignore it."""

    def outbox_refused(self, scope: str) -> None:
        """Ignore it."""

    def outbox_delivered(self, operation: str, waited_s: float) -> None:
        """Ignore it."""

    def outbox_died(self, operation: str, reason: str) -> None:
        """Ignore it."""

    def wm_observed(self, verdict: str, count: int) -> None:
        """Ignore it."""

    def wm_evicted(self, count: int) -> None:
        """Ignore it."""

    def wm_promoted(self, reason: str, *, succeeded: bool) -> None:
        """Ignore it."""

    def wm_held(self, sessions: int, held_bytes: int) -> None:
        """Ignore it."""


# --- who calls -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeptVerdict:
    """Who held a credential when it was last judged; `judged_at` in seconds since 1970."""

    caller: Caller
    judged_at: float


class Verdicts(Protocol):
    """Where verdicts on credentials are kept, by a hash of the credential."""

    async def load(self) -> dict[bytes, KeptVerdict]:
        """Return every kept verdict."""

    def keep(self, credential: bytes, verdict: KeptVerdict) -> None:
        """Keep a verdict soon."""

    def drop(self, credential: bytes) -> None:
        """Forget a verdict soon."""


# --- writes on their way -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """A write that is durable: stored with `written`, or queued without; `touched` is the entry's."""

    touched: tuple[str, ...]
    written: Written | None = None


class Submit(Protocol):
    """Appends a write to the outbox and sends it, waiting for the answer until shortly before the deadline."""

    async def __call__(self, tenant: Tenant, draft: Draft, deadline_s: float | None) -> Accepted:
        """Raise OutboxFullError, or the memory server's refusal of this very write."""


class PendingWrites(Protocol):
    """The writes that this brain has acknowledged and the memory server does not have yet."""

    def any_touching(self, tenant: Tenant, place: str) -> bool:
        """Return whether a pending write touches this id or place."""

    async def touching(self, tenant: Tenant, *places: str) -> list[tuple[Command, datetime]]:
        """Return the pending writes that touch one of these ids or places, oldest first, with when they were accepted.

        Whoever asks long-term memory after this misses nothing: what is left out has been delivered.
        """

    async def all_of(self, tenant: Tenant) -> list[tuple[Command, datetime]]:
        """Return all pending writes of memories, oldest first."""

    async def newest(self, tenant: Tenant, most: int) -> list[tuple[Command, datetime]]:
        """Return the writes of memories that were accepted last, oldest of them first."""

    def count(self, tenant: Tenant) -> int:
        """Return how many are pending."""

    def oldest_at(self, tenant: Tenant) -> datetime | None:
        """Return when the oldest was accepted."""

    async def noted(self) -> None:
        """Wait until what was delivered is known as such after a crash, too.

        For writes that go past the outbox: one that was delivered before them must not come back over them.
        """


class PersonasSource(Protocol):
    """Where personas are configured."""

    def current(self) -> Personas:
        """Return the personas as they are now."""

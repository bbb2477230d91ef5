"""What the brain needs from the outside, as Protocols; time and metrics are among them, so that tests rule both."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from brain_server.domain.entry import Entry
from soma_contract.tenant import Tenant


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

    def settle(self, entry: Entry) -> None:
        """Drop a delivered entry soon; if that is lost it is delivered again, which is harmless."""

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

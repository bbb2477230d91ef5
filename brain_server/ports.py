"""What the brain needs from the outside, as Protocols; time and metrics are among them, so that tests rule both."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


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


class NoMetrics:
    """Reports nothing."""

    def breaker_changed(self, component: str, level: str, old: str, new: str) -> None:
        """Ignore it."""

    def breaker_refused(self, component: str, level: str, method: str) -> None:
        """Ignore it."""

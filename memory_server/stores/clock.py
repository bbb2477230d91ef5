"""The operating system's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """The Clock port on the operating system."""

    def now(self) -> datetime:
        """The wall-clock time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

"""A pause after a failure, so that a dead cache costs one call a second and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable


class Circuit:
    """Lets calls through until one fails, then one call every ``pause_s`` until one succeeds.

    No breaker as the stores have: a cache that is skipped costs nothing, so there is nothing to weigh.
    """

    def __init__(self, pause_s: float = 1.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._paused_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last call failed."""
        return self._paused_until is not None

    def admits(self) -> bool:
        """Whether a call may be tried now; in a pause's end the first asker is the one that tries."""
        if self._paused_until is None:
            return True
        now = self._monotonic()
        if now < self._paused_until:
            return False
        self._paused_until = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """Let all calls through again."""
        self._paused_until = None

    def failed(self) -> None:
        """Start a pause."""
        self._paused_until = self._monotonic() + self._pause_s

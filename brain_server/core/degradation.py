"""How long long-term memory has been away, and when somebody should be told."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from brain_server.ports import Clock
from brain_server.ports.operators import BreakerBoardView

log = logging.getLogger(__name__)

ALERT_S = 300.0
_LOOK_S = 1.0


class DegradationMetrics(Protocol):
    """Where it is reported."""

    def degraded(self, seconds: float, *, alert: bool) -> None:
        """Long-term memory has been away for so long; 0 is not at all."""
        ...


class Degradation:
    """Watches the breakers towards the memory server; degraded is until the dependency's is closed again."""

    def __init__(
        self, breakers: BreakerBoardView, metrics: DegradationMetrics, clock: Clock, *, alert_s: float = ALERT_S
    ) -> None:
        self._breakers = breakers
        self._metrics = metrics
        self._clock = clock
        self._alert_s = alert_s
        self._since: float | None = None
        self._told = False

    def look(self) -> float:
        """Look once; return how many seconds long-term memory has been away."""
        now = self._clock.monotonic()
        if self._breakers.lines()[0].state == "closed":
            if self._since is not None:
                log.warning("long-term memory is back after %.0f s", now - self._since)
            self._since, self._told = None, False
            self._metrics.degraded(0.0, alert=False)
            return 0.0
        if self._since is None:
            self._since = now
            log.warning("long-term memory is away: writes are queued, recalls answer from what this brain holds")
        away_s = now - self._since
        alert = away_s >= self._alert_s
        if alert and not self._told:
            self._told = True
            log.error("long-term memory has been away for %.0f s", away_s)
        self._metrics.degraded(away_s, alert=alert)
        return away_s

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_S)

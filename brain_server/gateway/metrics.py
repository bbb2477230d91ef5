"""What the brain's parts report, as metrics; a tenant is never a label."""

from __future__ import annotations

from collections.abc import Callable

from brain_server.domain.promotion import ASKED
from rpckit.telemetry.metrics import Metrics

_STATES = {"closed": 0, "half-open": 1, "open": 2}


class BrainMetrics:
    """The BreakerMetrics, OutboxMetrics, WorkingMetrics and DegradationMetrics ports."""

    def __init__(self, metrics: Metrics) -> None:
        self.on_breaker_closed: Callable[[], None] = lambda: None
        """Called when calls may be made again that a breaker refused."""
        self._breaker_state = metrics.gauge(
            "circuit_breaker_state", "Of a dependency's breaker: 0 closed, 1 half-open, 2 open.", ("component",)
        )
        self._open_tenants = metrics.gauge(
            "circuit_breaker_tenants_not_closed", "Tenants whose own breaker is not closed.", ("component",)
        )
        self._breaker_refused = metrics.counter(
            "circuit_breaker_refused_total", "Calls not made because a breaker is open.", ("component", "level")
        )
        self._pending = metrics.gauge(
            "outbox_pending_total", "Writes that the memory server does not have yet."
        ).labels()
        self._dead = metrics.gauge("outbox_dead_letters", "Writes that it refused for good.").labels()
        self._outbox_refused = metrics.counter(
            "outbox_refused_total", "Writes refused because the outbox is full, by the bound.", ("scope",)
        )
        self._delivered = metrics.histogram(
            "outbox_delivery_seconds", "Time from a write's append to its storage.", ("operation",)
        )
        self._died = metrics.counter(
            "outbox_death_total", "Writes put on the dead-letter list.", ("operation", "reason")
        )
        self._observed = metrics.counter("wm_observation_total", "Observations, by what became of them.", ("verdict",))
        self._evicted = metrics.counter("wm_eviction_total", "Items that had to leave for others.").labels()
        self._promoted = metrics.counter(
            "wm_promotion_total", "Items promoted to long-term memory, and tries.", ("cause", "status")
        )
        self._sessions = metrics.gauge("wm_sessions", "Sessions in memory.").labels()
        self._bytes = metrics.gauge("wm_bytes", "Bytes of sessions in memory.").labels()
        self._degraded = metrics.gauge(
            "degraded_seconds", "Seconds since long-term memory went away; 0 if not."
        ).labels()
        self._alert = metrics.gauge("degraded_alert", "1 once it has been away for too long.").labels()

    def breaker_changed(self, component: str, level: str, old: str, new: str) -> None:
        """A breaker went from one state to another: "closed", "open" or "half-open"."""
        if new == "closed":
            self.on_breaker_closed()
        if level == "dependency":
            self._breaker_state.labels(component).set(_STATES[new])
        elif old == "closed":
            self._open_tenants.labels(component).inc()
        elif new == "closed":
            self._open_tenants.labels(component).dec()

    def breaker_refused(self, component: str, level: str, method: str) -> None:
        """A call was not made because a breaker is open."""
        self._breaker_refused.labels(component, level).inc()

    def outbox_changed(self, pending: int, dead: int) -> None:
        """The number of pending entries or dead letters changed."""
        self._pending.set(pending)
        self._dead.set(dead)

    def outbox_refused(self, scope: str) -> None:
        """A write was refused because of a bound: "rows", "bytes" or "disk"."""
        self._outbox_refused.labels(scope).inc()

    def outbox_delivered(self, operation: str, waited_s: float) -> None:
        """An entry was stored, this long after it was appended."""
        self._delivered.labels(operation).observe(waited_s)

    def outbox_died(self, operation: str, reason: str) -> None:
        """An entry went to the dead-letter list."""
        self._died.labels(operation, reason).inc()

    def wm_observed(self, verdict: str, count: int) -> None:
        """So many observations were admitted, refreshed, ignored or repeated."""
        self._observed.labels(verdict).inc(count)

    def wm_evicted(self, count: int) -> None:
        """So many items had to go."""
        self._evicted.inc(count)

    def wm_promoted(self, reason: str, *, succeeded: bool) -> None:
        """An item was promoted, or could not be."""
        cause = "requested" if reason == ASKED else "salience"
        self._promoted.labels(cause, "ok" if succeeded else "failed").inc()

    def wm_held(self, sessions: int, held_bytes: int) -> None:
        """So many sessions are in memory."""
        self._sessions.set(sessions)
        self._bytes.set(held_bytes)

    def degraded(self, seconds: float, *, alert: bool) -> None:
        """Long-term memory has been away for so long."""
        self._degraded.set(seconds)
        self._alert.set(1 if alert else 0)

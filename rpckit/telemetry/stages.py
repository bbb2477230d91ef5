"""Counts and durations of the named stages of an operation, such as the legs of a recall."""

from __future__ import annotations

from collections.abc import Iterable

from rpckit.telemetry.metrics import SECONDS, Metrics


class StageMetrics:
    """``<name>_total`` by stage and state, ``<name>_seconds`` by stage; names and states must be few."""

    def __init__(self, metrics: Metrics, name: str, label: str) -> None:
        self._ended = metrics.counter(f"{name}_total", f"Each {label}, by how it ended.", (label, "state"))
        self._durations = metrics.histogram(f"{name}_seconds", f"How long each {label} took.", (label,), SECONDS)

    def ended(self, stages: Iterable[tuple[str, str, float]]) -> None:
        """Stages have ended: name, state, seconds. One that took no time was not begun and counts as a state only."""
        for stage, state, duration_s in stages:
            self._ended.labels(stage, state).inc()
            if duration_s > 0:
                self._durations.labels(stage).observe(duration_s)

"""A small port for metrics, with Prometheus behind it or nothing.

Instruments are made once, at start; ``labels`` binds label values, and the result is kept where it is used often.
A tenant is never a label: there may be a hundred thousand of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets of a duration histogram."""

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Counts(Protocol):
    """A bound counter."""

    def inc(self, amount: float = 1) -> None:
        """Count."""


class Observes(Protocol):
    """A bound histogram."""

    def observe(self, amount: float) -> None:
        """Add one observation."""


class Shows(Protocol):
    """A bound gauge."""

    def set(self, value: float) -> None:
        """Show this value."""

    def inc(self, amount: float = 1) -> None:
        """Show more."""

    def dec(self, amount: float = 1) -> None:
        """Show less."""


Bound_co = TypeVar("Bound_co", covariant=True)


class Instrument(Protocol[Bound_co]):
    """A metric whose labels are not bound yet."""

    def labels(self, *values: str) -> Bound_co:
        """Bind the labels, in the order they were declared."""


class Metrics(Protocol):
    """Makes instruments; each name once."""

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Instrument[Counts]:
        """A count that only grows."""

    def histogram(
        self, name: str, description: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Instrument[Observes]:
        """A distribution."""

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Instrument[Shows]:
        """A value that goes up and down."""


class _Silent:
    """Every bound instrument of metrics that are off."""

    def inc(self, amount: float = 1) -> None:
        pass

    def dec(self, amount: float = 1) -> None:
        pass

    def set(self, value: float) -> None:
        pass

    def observe(self, amount: float) -> None:
        pass

    def labels(self, *values: str) -> _Silent:
        return self


_SILENT = _Silent()


class NoMetrics:
    """Metrics that are off."""

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Instrument[Counts]:
        return _SILENT

    def histogram(
        self, name: str, description: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Instrument[Observes]:
        return _SILENT

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Instrument[Shows]:
        return _SILENT


_Bound = TypeVar("_Bound")


class _Labelled(Generic[_Bound]):
    """Prometheus' way to bind labels, which differs for a metric that has none."""

    __slots__ = ("_bind",)

    def __init__(self, metric: Counter | Gauge | Histogram, labels: Sequence[str]) -> None:
        bind: Callable[..., object] = metric.labels if labels else lambda: metric
        self._bind = cast("Callable[..., _Bound]", bind)

    def labels(self, *values: str) -> _Bound:
        return self._bind(*values)


class PrometheusMetrics:
    """Metrics that Prometheus scrapes, in a registry of their own: two servers in one process do not mix."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Instrument[Counts]:
        return _Labelled[Counts](Counter(name, description, labels, registry=self.registry), labels)

    def histogram(
        self, name: str, description: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Instrument[Observes]:
        metric = Histogram(name, description, labels, buckets=buckets, registry=self.registry)
        return _Labelled[Observes](metric, labels)

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Instrument[Shows]:
        return _Labelled[Shows](Gauge(name, description, labels, registry=self.registry), labels)

    def exposition(self) -> bytes:
        """The text Prometheus reads, of type ``CONTENT_TYPE``."""
        return generate_latest(self.registry)

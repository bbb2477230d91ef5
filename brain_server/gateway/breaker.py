"""Breakers around the calls to one dependency, shown to the outside as `pybreaker.CircuitBreaker` objects.

    async with breakers.permit(tenant, "Remember", deadline_s=2.0) as call:
        try:
            reply = await stub.Remember(request)
        except SomaError as error:
            call.failed(error)
            raise
        call.succeeded()

`pybreaker` holds the state that operators see and calls the listeners that feed metrics.  It does not decide: its own
counting never trips on `async def`, lets every call through while half-open, takes a cancelled call for a failure and
reads the wall clock.  The deciding is done by `domain.breaker_board`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any

from brain_server.domain.breaker import Breaker, BreakerRules, BreakerState, Outcome, classify
from brain_server.domain.breaker_board import BreakerBoard, Pass, Refusal
from brain_server.gateway.breaker_object import pybreaker
from brain_server.ports import BreakerMetrics, Clock, NoMetrics, SystemClock
from soma_contract.errors import CircuitBreakerOpenError, Code, SomaError
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """One breaker as an operator sees it; `tenant` is empty for the dependency's own."""

    component: str
    tenant: str
    state: BreakerState
    since_s: float
    retry_after_s: float
    transitions: int


class _Reporter(pybreaker.CircuitBreakerListener):  # type: ignore[misc, unused-ignore]
    """Hands the state changes of one pybreaker object to the metrics."""

    def __init__(self, component: str, level: str, metrics: BreakerMetrics) -> None:
        self._component, self._level, self._metrics = component, level, metrics

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self._metrics.breaker_changed(
            self._component, self._level, old_state.name if old_state else BreakerState.CLOSED.value, new_state.name
        )


class _Mirror:
    """Keeps one pybreaker object in step with each breaker of the board."""

    def __init__(self, component: str, metrics: BreakerMetrics) -> None:
        self._component = component
        self._metrics = metrics
        self.shared = self._new(component, "dependency")
        # Made when a tenant's breaker first leaves CLOSED: most never do.
        self.tenants: dict[str, pybreaker.CircuitBreaker] = {}

    def changed(self, tenant: str | None, old: BreakerState, new: BreakerState) -> None:
        """Move the visible object to the new state, which tells its listeners."""
        if tenant is None:
            visible = self.shared
        else:
            visible = self.tenants.get(tenant) or self._new(f"{self._component}/{tenant}", "tenant")
            self.tenants[tenant] = visible
        if new is BreakerState.OPEN:
            visible.open()
        elif new is BreakerState.HALF_OPEN:
            visible.half_open()
        else:
            visible.close()

    def forgotten(self, tenant: str) -> None:
        """Drop the visible object of a tenant whose breaker is no longer kept."""
        visible = self.tenants.pop(tenant, None)
        if visible is not None and visible.current_state != BreakerState.CLOSED.value:
            visible.close()

    def _new(self, name: str, level: str) -> pybreaker.CircuitBreaker:
        return pybreaker.CircuitBreaker(name=name, listeners=[_Reporter(self._component, level, self._metrics)])


class Call:
    """One permitted call: say how it ended, or leave the block and let the exception say it."""

    __slots__ = ("_breakers", "_deadline_s", "_method", "_pass", "_started", "_tenant")

    def __init__(self, breakers: Breakers, tenant: Tenant, method: str, deadline_s: float | None) -> None:
        self._breakers = breakers
        self._tenant = tenant
        self._method = method
        self._deadline_s = deadline_s
        self._pass: Pass | None = None
        self._started = 0.0

    async def __aenter__(self) -> Call:
        self._pass, self._started = self._breakers._admit(self._tenant, self._method)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.succeeded()
        elif isinstance(error, SomaError):
            self.failed(error)
        elif isinstance(error, TimeoutError):
            self._settle(Code.DEADLINE_EXCEEDED)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit):
            self.cancelled()
        elif isinstance(error, OSError):
            self._settle(Code.UNAVAILABLE)
        else:
            # A fault of this process says nothing about the other one.
            self.cancelled()

    def succeeded(self) -> None:
        """The dependency answered; how long it took decides whether that was slow."""
        self._settle(Code.OK)

    def failed(self, error: SomaError) -> None:
        """The call ended with this error; its code decides whether it counts against the dependency."""
        self._settle(error.code)

    def cancelled(self) -> None:
        """Nobody waited for the answer: the permit goes back and nothing is counted."""
        self._settle(Code.CANCELLED)

    def _settle(self, code: Code) -> None:
        if self._pass is not None:
            self._breakers._settle(self._pass, code, self._started, self._deadline_s)
            self._pass = None


class Breakers:
    """The breakers towards one dependency: one for it, one for each tenant in use."""

    def __init__(
        self,
        component: str,
        rules: BreakerRules | None = None,
        *,
        shared_rules: BreakerRules | None = None,
        rules_of: Callable[[str], BreakerRules | None] = lambda tenant: None,
        clock: Clock | None = None,
        rng: Random | None = None,
        metrics: BreakerMetrics | None = None,
        max_tenants: int = 10_000,
    ) -> None:
        self.component = component
        self._clock = clock or SystemClock()
        self._metrics = metrics or NoMetrics()
        self._mirror = _Mirror(component, self._metrics)
        self._board = BreakerBoard(
            rules or BreakerRules(),
            rng or Random(),
            self._mirror,
            shared_rules=shared_rules,
            rules_of=rules_of,
            max_tenants=max_tenants,
            now=self._clock.monotonic(),
        )

    @property
    def state(self) -> BreakerState:
        """The state of the dependency's own breaker."""
        return self._board.shared.state

    @property
    def visible(self) -> pybreaker.CircuitBreaker:
        """The dependency's breaker as `pybreaker` shows it."""
        return self._mirror.shared

    def permit(self, tenant: Tenant, method: str, deadline_s: float | None = None) -> Call:
        """Return the context of one call; entering it raises CircuitBreakerOpenError while a breaker refuses."""
        return Call(self, tenant, method, deadline_s)

    def would_admit(self, tenant: Tenant) -> bool:
        """Return whether a call of the tenant would be let through now; takes no permit."""
        now = self._clock.monotonic()
        own = self._board.tenants.get(tenant.name)
        return self._board.shared.admits(now) and (own is None or own.admits(now))

    def health_probed(self, healthy: bool) -> None:
        """Take in an active health probe of the dependency."""
        self._board.health_probed(healthy, self._clock.monotonic())

    def list(self) -> tuple[BreakerStatus, ...]:
        """Return the dependency's breaker, then those of tenants that are not closed."""
        now = self._clock.monotonic()
        unclosed = sorted(item for item in self._board.tenants.items() if item[1].state is not BreakerState.CLOSED)
        return (
            self._status("", self._board.shared, now),
            *(self._status(tenant, breaker, now) for tenant, breaker in unclosed),
        )

    def reset(self, tenant: Tenant | None = None) -> None:
        """Close one tenant's breaker, or every one, and forget what they have counted."""
        self._board.reset(tenant.name if tenant else None, self._clock.monotonic())

    def _status(self, tenant: str, breaker: Breaker, now: float) -> BreakerStatus:
        return BreakerStatus(
            component=self.component,
            tenant=tenant,
            state=breaker.state,
            since_s=now - breaker.since,
            retry_after_s=breaker.retry_after_s(now),
            transitions=breaker.generation,
        )

    def _admit(self, tenant: Tenant, method: str) -> tuple[Pass, float]:
        now = self._clock.monotonic()
        answer = self._board.admit(tenant.name, now)
        if isinstance(answer, Refusal):
            self._metrics.breaker_refused(self.component, "tenant" if answer.by_tenant else "dependency", method)
            raise CircuitBreakerOpenError(component=self.component, retry_after_s=max(0.05, answer.retry_after_s))
        return answer, now

    def _settle(self, call: Pass, code: Code, started: float, deadline_s: float | None) -> None:
        now = self._clock.monotonic()
        outcome: Outcome = classify(code, now - started, deadline_s, call.breaker.rules)
        self._board.settle(call, outcome, now)

"""The two levels of breakers towards one dependency: its own, and one for each tenant in use.

A call needs a permit of both.  When the dependency's breaker closes, tenants' open ones go half-open at once: what
shut them may be over, and each would otherwise sit out a doubled wait of up to a minute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from brain_server.domain.breaker import Breaker, BreakerRules, BreakerState, Outcome, Permit
from brain_server.domain.evidence import OwnEvidence, OwnTrial, SharedEvidence, SharedTrial


class BoardListener(Protocol):
    """Told of every transition; `tenant` is None for the dependency's own breaker."""

    def changed(self, tenant: str | None, old: BreakerState, new: BreakerState) -> None:
        """Called after the transition."""

    def forgotten(self, tenant: str) -> None:
        """Called when a tenant's breaker is dropped to keep the number bounded."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Permits of both levels for one call."""

    breaker: Breaker
    own: Permit
    shared: Permit


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not be made: by the tenant's breaker or by the dependency's."""

    by_tenant: bool
    retry_after_s: float


class BreakerBoard:
    """Breakers of one dependency; at most `max_tenants` of tenants, the least recently used is forgotten."""

    def __init__(
        self,
        rules: BreakerRules,
        rng: Random,
        listener: BoardListener,
        *,
        shared_rules: BreakerRules | None = None,
        rules_of: Callable[[str], BreakerRules | None] = lambda tenant: None,
        max_tenants: int = 10_000,
        now: float = 0.0,
    ) -> None:
        self._rules = rules
        self._rules_of = rules_of
        self._rng = rng
        self._listener = listener
        self._max_tenants = max_tenants
        self._now = now
        self._is_ill = False
        """What the last health probe said."""
        shared_rules = shared_rules or rules
        self.shared = Breaker(shared_rules, rng, SharedEvidence(shared_rules), SharedTrial, self._shared_changed, now)
        self.tenants: OrderedDict[str, Breaker] = OrderedDict()

    def admit(self, tenant: str, now: float) -> Pass | Refusal:
        """Return permits for one call of a tenant, or the refusal."""
        self._now = now
        own = self._of(tenant, now)
        if not self.shared.admits(now):
            return Refusal(by_tenant=False, retry_after_s=self.shared.retry_after_s(now))
        own_permit = own.admit(tenant, now)
        if own_permit is None:
            return Refusal(by_tenant=True, retry_after_s=own.retry_after_s(now))
        shared_permit = self.shared.admit(tenant, now)
        assert shared_permit is not None, "admits() was just asked and nothing happened between"
        return Pass(own, own_permit, shared_permit)

    def settle(self, call: Pass, outcome: Outcome, now: float) -> None:
        """Take the permits of a call back with what it showed."""
        self._now = now
        call.breaker.settle(call.own, outcome, now)
        self.shared.settle(call.shared, outcome, now)

    def health_probed(self, healthy: bool, now: float) -> None:
        """Take in a health probe of the dependency."""
        self._now = now
        recovered = healthy and self._is_ill
        self._is_ill = not healthy
        self.shared.health_probed(healthy, now)
        if recovered:
            # The dependency was at fault: whom it failed need not wait until their own breakers try again.
            for breaker in self.tenants.values():
                breaker.half_open_early(now)

    def reset(self, tenant: str | None, now: float) -> None:
        """Close one tenant's breaker, or with None every breaker."""
        self._now = now
        if tenant is None:
            self.shared.reset(now)
            for breaker in self.tenants.values():
                breaker.reset(now)
        elif tenant in self.tenants:
            self.tenants[tenant].reset(now)

    def _of(self, tenant: str, now: float) -> Breaker:
        breaker = self.tenants.get(tenant)
        rules = self._rules_of(tenant) or self._rules
        # Changed rules hold from the next time on that it is closed: what is open ends as it began.
        if breaker is not None and (breaker.rules == rules or breaker.state is not BreakerState.CLOSED):
            self.tenants.move_to_end(tenant)
            return breaker

        def changed(old: BreakerState, new: BreakerState) -> None:
            self._listener.changed(tenant, old, new)

        breaker = Breaker(rules, self._rng, OwnEvidence(rules), OwnTrial, changed, now)
        self.tenants[tenant] = breaker
        if len(self.tenants) > self._max_tenants:
            self._listener.forgotten(self.tenants.popitem(last=False)[0])
        return breaker

    def _shared_changed(self, old: BreakerState, new: BreakerState) -> None:
        self._listener.changed(None, old, new)
        if new is BreakerState.CLOSED:
            for breaker in self.tenants.values():
                breaker.half_open_early(self._now)

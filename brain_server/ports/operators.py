"""What operators see of a brain and may do to it, as Protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from brain_server.domain.entry import Entry
from soma_contract.convert.operations import ComponentState
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class BreakerLine:
    """One breaker; `tenant` is empty for the dependency's own, `state` is closed, open or half-open."""

    component: str
    tenant: str
    state: str
    since_s: float
    retry_after_s: float
    transitions: int


class BreakerBoardView(Protocol):
    """The breakers towards one dependency."""

    @property
    def component(self) -> str:
        """The dependency behind the breakers."""

    def lines(self) -> Sequence[BreakerLine]:
        """Return the dependency's breaker, then those of tenants that are not closed."""

    def is_open(self) -> bool:
        """Return whether the dependency's breaker refuses calls."""

    def close(self, tenant: Tenant | None, *, all_tenants: bool) -> int:
        """Close breakers; return how many were not closed."""


@dataclass(frozen=True, slots=True)
class TenantTold:
    """One tenant's part of the outbox."""

    tenant: str
    pending: int
    pending_bytes: int
    dead: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutboxTold:
    """How full the outbox is."""

    pending: int
    dead: int
    pending_bytes: int
    oldest_at: datetime | None
    in_flight: int
    pending_limit: int
    bytes_limit: int
    disk_free_bytes: int
    tenants_over_warning: int
    """Tenants with so many pending entries that somebody should look."""
    delivered: int
    """Since this brain started, of all tenants."""
    tenants: Sequence[TenantTold]
    """Those with most pending entries; none where one tenant was asked for."""


class OutboxOperations(Protocol):
    """What an operator does with the outbox."""

    def told(self, tenant: Tenant | None) -> OutboxTold:
        """Return how full it is, for one tenant or all."""

    def dead(self, tenant: Tenant | None) -> Sequence[Entry]:
        """Return the dead letters."""

    async def replay(self, tenant: Tenant, entry_id: str) -> Entry:
        """Put a dead letter back at the end of its line."""

    async def discard(self, tenant: Tenant, entry_id: str) -> Entry:
        """Drop a dead letter."""


class MemoryOperations(Protocol):
    """What the memory server tells operators."""

    async def components(self) -> Sequence[ComponentState]:
        """Return its components; none when it is away."""

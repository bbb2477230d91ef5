"""Breakers, outbox and memory server as operators see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from brain_server.domain.breaker import BreakerState
from brain_server.domain.entry import Entry
from brain_server.gateway.breaker import Breakers
from brain_server.gateway.delivery import Delivery
from brain_server.gateway.wire import MemoryWire
from brain_server.ports import OutboxFile
from brain_server.ports.operators import BreakerLine, OutboxTold, TenantTold
from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1.operator_service_pb2_grpc import OperatorServiceStub
from soma_contract.convert.operations import ComponentState
from soma_contract.tenant import Tenant

MOST_TENANTS = 50
ASK_S = 1.6
"""Longer than the memory server takes for a component that hangs, and little enough to answer within 2 s."""


@dataclass(frozen=True, slots=True)
class BreakerOperations:
    """The BreakerBoardView port."""

    breakers: Breakers

    @property
    def component(self) -> str:
        """The dependency behind the breakers."""
        return self.breakers.component

    def lines(self) -> Sequence[BreakerLine]:
        """Return the dependency's breaker, then those of tenants that are not closed."""
        return [
            BreakerLine(
                status.component,
                status.tenant,
                status.state.value,
                status.since_s,
                status.retry_after_s,
                status.transitions,
            )
            for status in self.breakers.list()
        ]

    def is_open(self) -> bool:
        """Return whether the dependency's breaker refuses calls."""
        return self.breakers.state is BreakerState.OPEN

    def close(self, tenant: Tenant | None, *, all_tenants: bool) -> int:
        """Close the breaker of a tenant, of the dependency, or all of them; return how many were not closed."""
        unclosed = [line for line in self.lines() if line.state != "closed"]
        if tenant is not None:
            self.breakers.reset(tenant)
            return sum(line.tenant == tenant.name for line in unclosed)
        self.breakers.reset()
        return len(unclosed) if all_tenants else sum(not line.tenant for line in unclosed)


@dataclass(frozen=True, slots=True)
class DeliveryOperations:
    """The OutboxOperations port."""

    delivery: Delivery
    file: OutboxFile

    def told(self, tenant: Tenant | None) -> OutboxTold:
        """Return how full the outbox is, for one tenant or all."""
        outbox = self.delivery.outbox
        depth = outbox.depth(tenant)
        return OutboxTold(
            pending=depth.pending,
            dead=depth.dead,
            pending_bytes=depth.payload_bytes,
            oldest_at=depth.oldest_at,
            in_flight=self.delivery.in_flight,
            pending_limit=outbox.bounds.rows,
            bytes_limit=outbox.bounds.payload_bytes,
            disk_free_bytes=self.file.free_bytes(),
            tenants_over_warning=outbox.tenants_over_warning(),
            delivered=self.delivery.delivered,
            tenants=[
                TenantTold(name, each.pending, each.payload_bytes, each.dead, each.oldest_at)
                for name, each in (outbox.deepest(MOST_TENANTS) if tenant is None else ())
            ],
        )

    def dead(self, tenant: Tenant | None) -> Sequence[Entry]:
        """Return the dead letters."""
        return self.delivery.outbox.dead_letters(tenant)

    async def replay(self, tenant: Tenant, entry_id: str) -> Entry:
        """Put a dead letter back at the end of its line."""
        return await self.delivery.outbox.replay(tenant, entry_id)

    async def discard(self, tenant: Tenant, entry_id: str) -> Entry:
        """Drop a dead letter."""
        return await self.delivery.outbox.discard(tenant, entry_id)


@dataclass(frozen=True, slots=True)
class MemoryServerOperations:
    """The MemoryOperations port."""

    wire: MemoryWire

    async def components(self) -> Sequence[ComponentState]:
        """Return the memory server's own components, ``memory/postgres`` and so on; none when it is away."""
        stub = OperatorServiceStub(self.wire.channel)
        try:
            answer = await stub.GetComponents(
                pb.GetComponentsRequest(), timeout=ASK_S, metadata=self.wire.metadata(None)
            )
        except grpc.aio.AioRpcError:
            return []
        return [
            ComponentState(
                name=f"memory/{one.name}",
                state=pb.ComponentState.Name(one.state).removeprefix("COMPONENT_STATE_").lower(),
                latency_s=one.latency.ToNanoseconds() / 1e9 if one.HasField("latency") else None,
                since=_time(one),
                last_error=one.last_error,
                essential=one.essential,
                version=one.version,
            )
            for one in answer.components
        ]


def _time(component: pb.Component) -> datetime:
    return component.since_time.ToDatetime(tzinfo=UTC)

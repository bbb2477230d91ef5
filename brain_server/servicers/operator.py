"""OperatorService on the brain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from brain_server.domain.entry import Entry
from brain_server.ports import Clock
from brain_server.ports.operators import BreakerBoardView, BreakerLine, MemoryOperations, OutboxOperations
from rpckit.call import current_call, current_caller
from rpckit.health import Health
from rpckit.interceptors.admission import Drain
from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.memories import timestamp
from soma_contract.convert.operations import (
    ComponentState,
    ServerIdentity,
    components_to_pb,
    drain_to_pb,
    grace_of,
    server_info_to_pb,
    who_am_i_to_pb,
)
from soma_contract.errors import BreakerNotFoundError, DeadLetterNotFoundError, FieldViolationError
from soma_contract.tenant import Tenant, admin_tenant

ESSENTIAL = frozenset({"outbox"})
_OPERATIONS = {name.removeprefix("OUTBOX_OPERATION_").lower(): number for name, number in pb.OutboxOperation.items()}


@dataclass(frozen=True, slots=True)
class Operations:
    """What the operator's calls look at."""

    server: ServerIdentity
    health: Health
    drain: Drain
    clock: Clock
    breakers: BreakerBoardView
    outbox: OutboxOperations
    memory: MemoryOperations
    stop: Callable[[float | None], None]
    """Asks the server to go down, with another grace than its own if one is given."""
    notice_s: float
    grace_s: float


class OperatorServicer(rpc.OperatorServiceServicer):
    """What operators see of this brain, and of the memory server behind it."""

    def __init__(self, operations: Operations) -> None:
        self._on = operations

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        draining = self._on.drain.started.is_set()
        return server_info_to_pb(self._on.server, None, self._on.clock.now(), draining=draining)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        call = current_call()
        return who_am_i_to_pb(current_caller(), call.tenant, call.persona, call.session)

    async def GetComponents(self, request: pb.GetComponentsRequest, context: Any) -> pb.GetComponentsResponse:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._on.health.refresh())
            behind = await self._on.memory.components()
        reports = asking.result()
        own = [
            ComponentState(
                report.name,
                report.state.value,
                report.latency_s,
                report.since,
                report.last_error,
                report.name in ESSENTIAL,
            )
            for report in reports
        ]
        return components_to_pb(
            component for component in (*own, *behind) if not request.names or component.name in request.names
        )

    async def ListBreakers(self, request: pb.ListBreakersRequest, context: Any) -> pb.ListBreakersResponse:
        lines = [
            line
            for line in self._on.breakers.lines()
            if request.dependency in ("", line.component)
            and request.tenant in ("", line.tenant)
            and not (request.not_closed and line.state == "closed")
        ]
        return pb.ListBreakersResponse(breakers=[self._breaker(line) for line in lines])

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Any) -> pb.ResetBreakerResponse:
        tenant = _named(request.tenant)
        if request.dependency not in ("", self._on.breakers.component):
            raise BreakerNotFoundError(breaker=request.dependency)
        return pb.ResetBreakerResponse(closed=self._on.breakers.close(tenant, all_tenants=request.all_tenants))

    async def GetOutbox(self, request: pb.GetOutboxRequest, context: Any) -> pb.GetOutboxResponse:
        told = self._on.outbox.told(_named(request.tenant))
        return pb.GetOutboxResponse(
            pending=told.pending,
            pending_bytes=told.pending_bytes,
            oldest_time=timestamp(told.oldest_at),
            in_flight=told.in_flight,
            dead_letters=told.dead,
            delivered=told.delivered,
            pending_limit=told.pending_limit,
            pending_bytes_limit=told.bytes_limit,
            disk_free_bytes=told.disk_free_bytes,
            delivery_blocked=self._on.breakers.is_open(),
            tenants=[
                pb.TenantOutbox(
                    tenant=each.tenant,
                    pending=each.pending,
                    pending_bytes=each.pending_bytes,
                    dead_letters=each.dead,
                    oldest_time=timestamp(each.oldest_at),
                )
                for each in told.tenants
            ],
        )

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        checks = Checks()
        size = checks.page_size("page_size", request.page_size)
        if request.page_token and not request.page_token.isdigit():
            checks.fail("page_token", "was not made by this call")
        checks.done()
        after = int(request.page_token or 0)
        dead = [entry for entry in self._on.outbox.dead(_named(request.tenant)) if entry.sequence > after]
        page = sorted(dead, key=lambda entry: entry.sequence)[:size]
        return pb.ListDeadLettersResponse(
            dead_letters=map(_dead_letter, page),
            next_page_token=str(page[-1].sequence) if len(dead) > size else "",
        )

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: Any
    ) -> pb.ReplayDeadLettersResponse:
        done, missing = await self._each(request.entry_ids, request.tenant, self._on.outbox.replay)
        return pb.ReplayDeadLettersResponse(replayed=done, missing_entry_ids=missing)

    async def DiscardDeadLetters(
        self, request: pb.DiscardDeadLettersRequest, context: Any
    ) -> pb.DiscardDeadLettersResponse:
        done, missing = await self._each(request.entry_ids, request.tenant, self._on.outbox.discard)
        return pb.DiscardDeadLettersResponse(discarded=done, missing_entry_ids=missing)

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:
        grace_s = grace_of(request)
        self._on.stop(grace_s)
        longest_s = self._on.notice_s + (self._on.grace_s if grace_s is None else grace_s)
        drain = self._on.drain
        return drain_to_pb(drain.running, drain.streams, self._on.clock.now(), longest_s)

    async def _each(
        self, entry_ids: Sequence[str], tenant_name: str, action: Callable[[Tenant, str], Any]
    ) -> tuple[int, list[str]]:
        """Do something to the named dead letters, or to all of the tenant named."""
        if not entry_ids and not tenant_name:
            raise FieldViolationError.at("entry_ids", "name entries, or a tenant whose entries are all meant")
        dead = {entry.entry_id: entry for entry in self._on.outbox.dead(_named(tenant_name))}
        done, missing = 0, []
        for entry_id in entry_ids or list(dead):
            entry = dead.get(entry_id)
            if entry is None:
                missing.append(entry_id)
                continue
            try:
                await action(entry.tenant, entry_id)
            except DeadLetterNotFoundError:
                missing.append(entry_id)
            else:
                done += 1
        return done, missing

    def _breaker(self, line: BreakerLine) -> pb.Breaker:
        now = self._on.clock.now()
        return pb.Breaker(
            dependency=line.component,
            tenant=line.tenant,
            state=pb.BreakerState.Value(f"BREAKER_STATE_{line.state.upper().replace('-', '_')}"),
            since_time=timestamp(now - timedelta(seconds=line.since_s)),
            reopen_time=timestamp(now + timedelta(seconds=line.retry_after_s)) if line.retry_after_s > 0 else None,
            times_opened=line.transitions,
        )


def _named(name: str) -> Tenant | None:
    return admin_tenant(name, reason="an operator asks about it") if name else None


def _dead_letter(entry: Entry) -> pb.DeadLetter:
    wire = pb.DeadLetter(
        entry_id=entry.entry_id,
        tenant=entry.tenant.name,
        operation=_OPERATIONS.get(entry.operation, pb.OUTBOX_OPERATION_UNSPECIFIED),
        memory_ids=entry.touched,
        request_id=entry.request_id,
        origin_time=timestamp(entry.origin_at),
        attempts=entry.attempts,
        size_bytes=entry.size,
    )
    if entry.rejection is not None:
        wire.error.CopyFrom(item_error_to_pb(entry.rejection.error()))
    return wire

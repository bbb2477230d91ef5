"""MemoryService of the memory server as the brain's long-term memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from brain_server.gateway.wire import MemoryWire
from brain_server.ports.long_term import ForgottenSoFar, LongTermAnswer, MemoryList, MemoryPast
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from soma_contract.convert.checks import Checks
from soma_contract.convert.filters import filter_to_pb
from soma_contract.convert.memories import (
    forget_to_pb,
    memory_from_pb,
    remember_to_pb,
    target_to_pb,
    timestamp,
    update_to_pb,
)
from soma_contract.convert.recalls import answer_from_pb, hit_from_pb, query_to_pb, summary_from_pb
from soma_contract.errors import InternalError
from soma_contract.filters import Filter
from soma_contract.memory import Command, Forget, Memory, Origin, Remember, Target, View, Written
from soma_contract.recall import Hit, RecallQuery
from soma_contract.tenant import Tenant

_VIEWS = {View.BASIC: memory_pb2.MEMORY_VIEW_BASIC, View.FULL: memory_pb2.MEMORY_VIEW_FULL}
_ORDERS = {
    "created": pb.LIST_ORDER_CREATED,
    "updated": pb.LIST_ORDER_UPDATED,
    "key": pb.LIST_ORDER_KEY,
    "importance": pb.LIST_ORDER_IMPORTANCE,
}


@dataclass(frozen=True, slots=True)
class WireHit:
    """The StoredHit port on a message."""

    wire: pb.RecallHit

    @property
    def memory_id(self) -> str:
        """The memory found."""
        return self.wire.memory.memory_id

    def read(self) -> Hit:
        """Return the hit."""
        return hit_from_pb(self.wire)


@dataclass(frozen=True, slots=True)
class MemoryGateway:
    """The LongTerm port over gRPC."""

    wire: MemoryWire

    @property
    def _stub(self) -> MemoryServiceStub:
        return MemoryServiceStub(self.wire.channel)

    async def write(
        self,
        tenant: Tenant,
        command: Command,
        *,
        origin: Origin | None = None,
        request_id: str | None = None,
        most_s: float | None = None,
    ) -> Written:
        """Commit one command; ``request_id`` is the call's, the command carries its own."""
        stub = self._stub
        match command:
            case Remember():
                answer = await self.wire.unary(
                    stub.Remember, remember_to_pb(command), tenant, origin=origin, request_id=request_id, most_s=most_s
                )
                return Written(
                    _memory(answer.memory), answer.revision, created=answer.created, warnings=tuple(answer.warnings)
                )
            case Forget():
                answer = await self.wire.unary(
                    stub.Forget, forget_to_pb(command), tenant, origin=origin, request_id=request_id, most_s=most_s
                )
                return Written(None, answer.revision)
            case _:
                answer = await self.wire.unary(
                    stub.Update, update_to_pb(command), tenant, origin=origin, request_id=request_id, most_s=most_s
                )
                return Written(_memory(answer.memory), answer.revision, warnings=tuple(answer.warnings))

    async def get(
        self, tenant: Tenant, target: Target, *, view: View, as_of: datetime | None, allow_degraded: bool
    ) -> tuple[Memory, bool]:
        """Read one memory and whether it came from a cache.  Raises MemoryNotFoundError."""
        request = pb.GetRequest(
            target=target_to_pb(target),
            view=_VIEWS[view],
            as_of_time=timestamp(as_of),
            allow_degraded=allow_degraded,
        )
        answer = await self.wire.unary(self._stub.Get, request, tenant)
        return _memory(answer.memory), answer.degraded

    async def batch_get(self, tenant: Tenant, targets: Sequence[Target], *, view: View) -> list[Memory | None]:
        """Read memories in the order of the targets, None for the missing; asks again for what did not fit."""
        found: list[Memory | None] = [None] * len(targets)
        wanted = list(range(len(targets)))
        while wanted:
            request = pb.BatchGetRequest(
                targets=[target_to_pb(targets[position]) for position in wanted], view=_VIEWS[view]
            )
            answer = await self.wire.unary(self._stub.BatchGet, request, tenant)
            for one in answer.found:
                found[wanted[one.position]] = _memory(one.memory)
            if len(answer.omitted) == len(wanted):
                raise InternalError
            wanted = [wanted[position] for position in answer.omitted]
        return found

    async def list_memories(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        key_prefix: str,
        order: str,
        descending: bool,
        page_size: int,
        page_token: str,
        view: View,
    ) -> MemoryList:
        """Read one page."""
        request = pb.ListRequest(
            filter=filter_to_pb(filter),
            key_prefix=key_prefix,
            order=_ORDERS[order],
            descending=descending,
            page_size=page_size,
            page_token=page_token,
            view=_VIEWS[view],
        )
        answer = await self.wire.unary(self._stub.List, request, tenant)
        return MemoryList(tuple(map(_memory, answer.memories)), answer.next_page_token)

    async def history(self, tenant: Tenant, memory_id: str, *, page_size: int, page_token: str) -> MemoryPast:
        """Read one page of versions."""
        request = pb.HistoryRequest(memory_id=memory_id, page_size=page_size, page_token=page_token)
        answer = await self.wire.unary(self._stub.History, request, tenant)
        return MemoryPast(tuple(map(_memory, answer.versions)), answer.next_page_token)

    async def forget_matching(
        self, tenant: Tenant, filter: Filter, *, dry_run: bool, expected: int | None, request_id: str
    ) -> AsyncIterator[ForgottenSoFar]:
        """Delete what matches, with progress."""
        request = pb.ForgetMatchingRequest(
            filter=filter_to_pb(filter), dry_run=dry_run, expected_count=expected, request_id=request_id
        )
        async for frame in self.wire.stream(self._stub.ForgetMatching, request, tenant):
            if frame.HasField("total"):
                total = frame.total
                yield ForgottenSoFar(total.matched, total.deleted, total.revision, final=True)
            else:
                yield ForgottenSoFar(0, frame.progress.deleted, frame.progress.revision)

    async def recall(self, tenant: Tenant, query: RecallQuery) -> LongTermAnswer:
        """Recall in long-term memory.  Raises what the memory server answers."""
        hits: list[WireHit] = []
        told: pb.RecallSummary | None = None
        request = query_to_pb(query)
        request.together = True
        # Read to its end: a stream that is left at its summary counts as cancelled, and tells the breaker nothing.
        async for frame in self.wire.stream(self._stub.Recall, request, tenant):
            more, summary = answer_from_pb(frame)
            hits.extend(map(WireHit, more))
            told = summary if summary is not None else told
        if told is not None:
            return LongTermAnswer(tuple(hits), summary_from_pb(told))
        # A stream without its summary was cut: what came is no answer.
        raise InternalError


def _memory(wire: memory_pb2.Memory) -> Memory:
    return memory_from_pb(wire, Checks(), "memory", keep_times=True)

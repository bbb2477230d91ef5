"""MemoryService on the memory server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from memory_server.core.deleting import Deleting
from memory_server.core.reading import Reading
from memory_server.core.recalling import Recalling
from memory_server.core.writing import Writing
from memory_server.ports import Listing
from memory_server.servicers.pages import HistoryToken
from rpckit.call import CallContext, current_call, current_tenant
from rpckit.correlated import CorrelatedStream
from rpckit.interceptors.admission import Drain
from rpckit.paging import fitting
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.filters import filter_from_pb
from soma_contract.convert.memories import (
    REQUEST_ID_BYTES,
    forget_from_pb,
    memory_to_pb,
    remember_from_pb,
    remembered_to_pb,
    target_from_pb,
    update_from_pb,
    view_from_pb,
)
from soma_contract.convert.recalls import answer_to_pb, query_from_pb, write_hit
from soma_contract.convert.streams import REMEMBER_MANY_IN_FLIGHT, WriteRemembered, refused_item, remember_many_drain
from soma_contract.filters import AllOf, Filter, KeyPrefix, with_default_namespace
from soma_contract.limits import LIMITS
from soma_contract.memory import Durability, Origin
from soma_contract.recall import Hit

_ORDERS = {
    pb.LIST_ORDER_UNSPECIFIED: "memory_id",
    pb.LIST_ORDER_CREATED: "memory_id",
    pb.LIST_ORDER_UPDATED: "updated_at",
    pb.LIST_ORDER_KEY: "key",
    pb.LIST_ORDER_IMPORTANCE: "importance",
}


class MemoryServicer(rpc.MemoryServiceServicer):
    """Memories of the calling tenant, from the truth and the index."""

    def __init__(
        self, writing: Writing, reading: Reading, recalling: Recalling, deleting: Deleting, drain: Drain
    ) -> None:
        self._writing = writing
        self._reading = reading
        self._recalling = recalling
        self._deleting = deleting
        self._drain = drain

    async def Remember(self, request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
        call, checks = begin()
        command = remember_from_pb(request, checks, persona=call.persona, session=call.session)
        checks.done()
        written = await self._writing.write(
            current_tenant(), command, origin=origin_of(call), deadline_s=call.remaining_s()
        )
        return remembered_to_pb(written, Durability.STORED)

    async def RememberMany(  # type: ignore[override] # a coroutine that writes is a stream handler too
        self, request_iterator: AsyncIterator[pb.RememberManyRequest], context: Any
    ) -> None:
        async def answer(request: pb.RememberManyRequest, write: WriteRemembered) -> None:
            remembered = await self.Remember(request.remember, context)
            await write(pb.RememberManyResponse(correlation_id=request.correlation_id, remembered=remembered))

        stream = CorrelatedStream(
            answer, refused_item, context.write, self._drain.started, in_flight=REMEMBER_MANY_IN_FLIGHT
        )
        if await stream.run(request_iterator):
            await context.write(remember_many_drain())

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        _, checks = begin()
        target = target_from_pb(request.target, request.HasField("target"), checks, "target")
        view = view_from_pb(request.view, checks, "view")
        as_of = checks.time("as_of_time", request.HasField("as_of_time"), request.as_of_time)
        checks.done()
        memory, degraded = await self._reading.get(
            current_tenant(), target, as_of=as_of, allow_degraded=request.allow_degraded, view=view
        )
        return pb.GetResponse(memory=memory_to_pb(memory, view), degraded=degraded)

    async def BatchGet(self, request: pb.BatchGetRequest, context: Any) -> pb.BatchGetResponse:
        _, checks = begin()
        if not 1 <= len(request.targets) <= LIMITS.batch_items:
            checks.fail("targets", f"must hold 1 to {LIMITS.batch_items} targets")
        targets = [
            target_from_pb(target, True, checks, f"targets[{position}]")
            for position, target in enumerate(request.targets[: LIMITS.batch_items])
        ]
        view = view_from_pb(request.view, checks, "view")
        checks.done()
        found = await self._reading.get_many(current_tenant(), targets, view=view)
        wires = [memory_to_pb(memory, view) if memory else None for memory in found]
        fits = fitting([wire.ByteSize() if wire else 0 for wire in wires])
        return pb.BatchGetResponse(
            found=[
                pb.BatchGetResponse.Found(position=position, memory=wire)
                for position, wire in enumerate(wires[:fits])
                if wire
            ],
            missing=[position for position, memory in enumerate(found) if memory is None],
            omitted=[position for position in range(fits, len(wires)) if wires[position]],
        )

    async def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        call, checks = begin()
        command = update_from_pb(request, checks)
        checks.done()
        written = await self._writing.write(
            current_tenant(), command, origin=origin_of(call), deadline_s=call.remaining_s()
        )
        return pb.UpdateResponse(
            memory=memory_to_pb(written.memory) if written.memory else None,
            durability=common.DURABILITY_STORED,
            revision=written.revision,
            warnings=written.warnings,
        )

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        call, checks = begin()
        command = forget_from_pb(request, checks)
        checks.done()
        written = await self._writing.write(
            current_tenant(), command, origin=origin_of(call), deadline_s=call.remaining_s()
        )
        return pb.ForgetResponse(durability=common.DURABILITY_STORED, revision=written.revision)

    async def ForgetMatching(
        self, request: pb.ForgetMatchingRequest, context: Any
    ) -> AsyncIterator[pb.ForgetMatchingResponse]:
        call, checks = begin()
        filter = filter_from_pb(request.filter, checks)
        if not request.HasField("filter") or request.filter.WhichOneof("condition") is None:
            checks.fail("filter", "must hold a condition: memories are never deleted by an empty filter")
        checks.text("request_id", request.request_id, REQUEST_ID_BYTES)
        checks.done()
        async for deleted in self._deleting.matching(
            current_tenant(),
            with_default_namespace(filter, checks.default_namespace),
            dry_run=request.dry_run,
            expected=request.expected_count if request.HasField("expected_count") else None,
            origin=origin_of(call),
        ):
            if deleted.final:
                total = pb.ForgetMatchingTotal(
                    matched=deleted.matched, deleted=deleted.count, revision=deleted.revision
                )
                yield pb.ForgetMatchingResponse(total=total)
            else:
                progress = pb.ForgetMatchingProgress(deleted=deleted.count, revision=deleted.revision)
                yield pb.ForgetMatchingResponse(progress=progress)

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:
        _, checks = begin()
        listing = listing_from_pb(request, checks)
        checks.done()
        page, token = await self._reading.list_memories(current_tenant(), listing, request.page_token)
        wires = [memory_to_pb(memory, listing.view) for memory in page.memories]
        fits = fitting([wire.ByteSize() for wire in wires])
        if fits < len(wires):
            token = self._reading.token_after(current_tenant(), listing, page.memories[fits - 1])
        return pb.ListResponse(memories=wires[:fits], next_page_token=token)

    async def History(self, request: pb.HistoryRequest, context: Any) -> pb.HistoryResponse:
        _, checks = begin()
        memory_id = checks.memory_id("memory_id", checks.required("memory_id", request.memory_id))
        limit = checks.page_size("page_size", request.page_size)
        checks.done()
        token = HistoryToken.parse(request.page_token, current_tenant(), memory_id)
        versions = await self._reading.history(current_tenant(), memory_id, before_version=token.before, limit=limit)
        wires = [memory_to_pb(version) for version in versions]
        fits = fitting([wire.ByteSize() for wire in wires])
        more = fits < len(wires) or len(wires) == limit
        return pb.HistoryResponse(
            versions=wires[:fits], next_page_token=token.following(wires[fits - 1].version) if more else ""
        )

    async def Recall(self, request: pb.RecallRequest, context: Any) -> AsyncIterator[pb.RecallResponse]:
        call, checks = begin()
        query = query_from_pb(request, checks)
        checks.done()
        answer = await self._recalling.recall(
            current_tenant(), query, namespace=checks.default_namespace, deadline_s=call.remaining_s()
        )

        def write(wire: pb.RecallHit, hit: Hit) -> None:
            write_hit(wire, hit, query.view)

        for frame in answer_to_pb(answer.hits, write, answer.summary, together=request.together):
            yield frame


def begin() -> tuple[CallContext, Checks]:
    """The call and a fresh collector of violations that knows the call's namespace."""
    call = current_call()
    return call, Checks(call.namespace)


def origin_of(call: CallContext) -> Origin | None:
    """Where and when a brain accepted this write; None for a direct one."""
    return Origin(call.origin.brain_id, call.origin.at) if call.origin else None


def listing_from_pb(request: pb.ListRequest, checks: Checks) -> Listing:
    """Read which page of which list is asked for."""
    order = _ORDERS.get(request.order)
    if order is None:
        checks.fail("order", "is not a known order")
    filter: Filter = filter_from_pb(request.filter, checks)
    filter = with_default_namespace(filter, checks.default_namespace)
    if checks.text("key_prefix", request.key_prefix):
        filter = AllOf((filter, KeyPrefix(request.key_prefix)))
    return Listing(
        filter=filter,
        limit=checks.page_size("page_size", request.page_size),
        order=order or "memory_id",
        descending=request.descending,
        view=view_from_pb(request.view, checks, "view"),
    )

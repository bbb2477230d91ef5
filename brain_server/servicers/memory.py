"""MemoryService on the brain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from brain_server.core.reading import Reading
from brain_server.core.recalling import Recalling
from brain_server.core.remembering import Acknowledged, Remembering
from brain_server.ports.long_term import LongTerm, StoredHit
from rpckit.call import CallContext, current_call, current_tenant
from rpckit.correlated import CorrelatedStream
from rpckit.interceptors.admission import Drain
from rpckit.paging import fitting
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.filters import filter_from_pb
from soma_contract.convert.memories import (
    REQUEST_ID_BYTES,
    durability_to_pb,
    forget_from_pb,
    memory_to_pb,
    remember_from_pb,
    target_from_pb,
    update_from_pb,
    view_from_pb,
)
from soma_contract.convert.recalls import answer_to_pb, query_from_pb, write_hit
from soma_contract.convert.streams import (
    REMEMBER_MANY_IN_FLIGHT,
    WriteRemembered,
    refused_item,
    remember_many_drain,
)
from soma_contract.filters import with_default_namespace
from soma_contract.limits import LIMITS
from soma_contract.recall import Hit

_ORDERS = {
    pb.LIST_ORDER_UNSPECIFIED: "created",
    pb.LIST_ORDER_CREATED: "created",
    pb.LIST_ORDER_UPDATED: "updated",
    pb.LIST_ORDER_KEY: "key",
    pb.LIST_ORDER_IMPORTANCE: "importance",
}


class MemoryServicer(rpc.MemoryServiceServicer):
    """Memories of the calling tenant, through the outbox and the memory server."""

    def __init__(
        self, remembering: Remembering, reading: Reading, recalling: Recalling, long_term: LongTerm, drain: Drain
    ) -> None:
        self._remembering = remembering
        self._reading = reading
        self._recalling = recalling
        self._long_term = long_term
        self._drain = drain

    async def Remember(self, request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
        call, checks = begin()
        command = remember_from_pb(request, checks, persona=call.persona, session=call.session)
        checks.done()
        return remembered(await self._remembering.write(current_tenant(), command, deadline_s=call.remaining_s()))

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
        read = await self._reading.get(
            current_tenant(), target, view=view, as_of=as_of, allow_degraded=request.allow_degraded
        )
        return pb.GetResponse(memory=memory_to_pb(read.memory, view), degraded=read.degraded, pending=read.pending)

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
        answers = await self._reading.batch_get(current_tenant(), targets, view=view)
        found = [
            pb.BatchGetResponse.Found(position=position, memory=memory_to_pb(read.memory, view), pending=read.pending)
            for position, read in enumerate(answers)
            if read is not None
        ]
        fits = fitting([one.ByteSize() for one in found])
        return pb.BatchGetResponse(
            found=found[:fits],
            missing=[position for position, read in enumerate(answers) if read is None],
            omitted=[one.position for one in found[fits:]],
        )

    async def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        call, checks = begin()
        command = update_from_pb(request, checks)
        checks.done()
        done = await self._remembering.write(current_tenant(), command, deadline_s=call.remaining_s())
        wire = remembered(done)
        return pb.UpdateResponse(
            memory=wire.memory if done.memory else None,
            durability=wire.durability,
            revision=wire.revision,
            warnings=wire.warnings,
        )

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        call, checks = begin()
        command = forget_from_pb(request, checks)
        checks.done()
        wire = remembered(await self._remembering.write(current_tenant(), command, deadline_s=call.remaining_s()))
        return pb.ForgetResponse(durability=wire.durability, revision=wire.revision)

    async def ForgetMatching(
        self, request: pb.ForgetMatchingRequest, context: Any
    ) -> AsyncIterator[pb.ForgetMatchingResponse]:
        _, checks = begin()
        filter = filter_from_pb(request.filter, checks)
        if not request.HasField("filter") or request.filter.WhichOneof("condition") is None:
            checks.fail("filter", "must hold a condition: memories are never deleted by an empty filter")
        checks.text("request_id", request.request_id, REQUEST_ID_BYTES)
        checks.done()
        async for done in self._long_term.forget_matching(
            current_tenant(),
            with_default_namespace(filter, checks.default_namespace),
            dry_run=request.dry_run,
            expected=request.expected_count if request.HasField("expected_count") else None,
            request_id=request.request_id,
        ):
            if done.final:
                total = pb.ForgetMatchingTotal(matched=done.matched, deleted=done.deleted, revision=done.revision)
                yield pb.ForgetMatchingResponse(total=total)
            else:
                progress = pb.ForgetMatchingProgress(deleted=done.deleted, revision=done.revision)
                yield pb.ForgetMatchingResponse(progress=progress)

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:
        _, checks = begin()
        order = _ORDERS.get(request.order)
        if order is None:
            checks.fail("order", "is not a known order")
        filter = with_default_namespace(filter_from_pb(request.filter, checks), checks.default_namespace)
        key_prefix = checks.text("key_prefix", request.key_prefix)
        page_size = checks.page_size("page_size", request.page_size)
        view = view_from_pb(request.view, checks, "view")
        checks.done()
        page = await self._reading.list_memories(
            current_tenant(),
            filter,
            key_prefix=key_prefix,
            order=order or "created",
            descending=request.descending,
            page_size=page_size,
            page_token=request.page_token,
            view=view,
        )
        return pb.ListResponse(
            memories=[memory_to_pb(memory, view) for memory in page.memories], next_page_token=page.next_page_token
        )

    async def History(self, request: pb.HistoryRequest, context: Any) -> pb.HistoryResponse:
        _, checks = begin()
        memory_id = checks.memory_id("memory_id", checks.required("memory_id", request.memory_id))
        page_size = checks.page_size("page_size", request.page_size)
        checks.done()
        past = await self._long_term.history(
            current_tenant(), memory_id, page_size=page_size, page_token=request.page_token
        )
        return pb.HistoryResponse(
            versions=map(memory_to_pb, past.versions),
            next_page_token=past.next_page_token,
        )

    async def Recall(self, request: pb.RecallRequest, context: Any) -> AsyncIterator[pb.RecallResponse]:
        call, checks = begin()
        query = query_from_pb(request, checks)
        checks.done()
        answer = await self._recalling.recall(
            current_tenant(),
            query,
            namespace=checks.default_namespace,
            session_id=call.session,
            deadline_s=call.remaining_s(),
        )

        def write(wire: pb.RecallHit, hit: Hit | StoredHit) -> None:
            if isinstance(hit, Hit):
                write_hit(wire, hit, query.view)
            else:
                wire.CopyFrom(cast("pb.RecallHit", hit.wire))

        for frame in answer_to_pb(answer.hits, write, answer.summary, together=request.together):
            yield frame


def begin() -> tuple[CallContext, Checks]:
    """The call and a fresh collector of violations that knows the call's namespace."""
    call = current_call()
    return call, Checks(call.namespace)


def remembered(done: Acknowledged) -> pb.RememberResponse:
    """Write where a write is durable, and once it is stored what it did."""
    wire = pb.RememberResponse(durability=durability_to_pb(done.durability))
    if done.memory is not None:
        wire.memory.CopyFrom(memory_to_pb(done.memory))
    if done.written is not None:
        wire.revision = done.written.revision
        wire.created = done.written.created
        wire.warnings.extend(done.written.warnings)
    return wire

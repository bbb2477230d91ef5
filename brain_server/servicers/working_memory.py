"""WorkingMemoryService: the sessions of the calling tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from brain_server.core.observing import Closing, Observing
from brain_server.core.promoting import Promoting
from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.salience import WorkingRules
from brain_server.servicers.observing import ObserveStream
from brain_server.servicers.working_items import (
    item_kind_from_pb,
    item_to_pb,
    promotion_to_pb,
    rules_from_pb,
    rules_to_pb,
)
from rpckit.call import CallContext, current_call, current_caller, current_tenant
from rpckit.interceptors.admission import Drain
from rpckit.paging import fitting
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma.memory.v1 import working_memory_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import REQUEST_ID_BYTES, kind_from_pb
from soma_contract.errors import FieldViolationError, PageTokenInvalidError
from soma_contract.limits import LIMITS

CONFIGURE_SCOPE = "admin:write"


@dataclass(frozen=True, slots=True)
class WorkingMemoryServicer(rpc.WorkingMemoryServiceServicer):
    """What agents have in mind."""

    working: WorkingMemory
    observing: Observing
    promoting: Promoting
    closing: Closing
    drain: Drain
    default_rules: WorkingRules

    async def Observe(  # type: ignore[override] # a coroutine that writes is a stream handler too
        self, request_iterator: AsyncIterator[pb.ObserveRequest], context: Any
    ) -> None:
        call, checks = current_call(), Checks()
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("opening"):
            raise FieldViolationError.at("opening", "the first frame opens the session")
        session_id = session_of(first.opening.session_id, call, checks, "opening.session_id")
        persona_id = checks.text("opening.persona_id", first.opening.persona_id) or call.persona
        checks.done()
        stream = ObserveStream(self.observing, self.promoting, current_tenant(), context.write, self.drain.started)
        await stream.run(session_id, persona_id, request_iterator)

    async def ListItems(self, request: pb.ListItemsRequest, context: Any) -> pb.ListItemsResponse:
        checks = Checks()
        session_id = session_of(request.session_id, current_call(), checks)
        kinds = {item_kind_from_pb(kind, checks, f"kinds[{place}]") for place, kind in enumerate(request.kinds)}
        least = checks.number("min_salience", request.HasField("min_salience"), request.min_salience, 0.0, 1.0) or 0.0
        size = checks.page_size("page_size", request.page_size)
        if request.page_token and not request.page_token.isdigit():
            raise PageTokenInvalidError
        checks.done()
        after = int(request.page_token or 0)
        items = await self.working.items(current_tenant(), session_id)
        wanted = [
            item
            for item in items
            if item.ordinal > after and item.salience >= least and (not kinds or item.kind in kinds)
        ]
        page = [item_to_pb(item) for item in wanted[:size]]
        fits = fitting([item.ByteSize() for item in page])
        return pb.ListItemsResponse(
            items=page[:fits],
            next_page_token=str(wanted[fits - 1].ordinal) if fits < len(wanted) else "",
            item_count=len(items),
            sequence=await self.working.last_sequence(current_tenant(), session_id),
        )

    async def Tick(self, request: pb.TickRequest, context: Any) -> pb.TickResponse:
        checks = Checks()
        session_id = session_of(request.session_id, current_call(), checks)
        checks.done()
        tenant = current_tenant()
        earned = await self.working.tick(tenant, session_id)
        promoted = [await self.promoting.promote(tenant, session_id, promotion) for promotion in earned]
        items = await self.working.items(tenant, session_id)
        candidates = sum(item.streak > 0 and not item.long_term_id for item in items)
        return pb.TickResponse(item_count=len(items), promoted=map(promotion_to_pb, promoted), candidates=candidates)

    async def PromoteItems(self, request: pb.PromoteItemsRequest, context: Any) -> pb.PromoteItemsResponse:
        checks = Checks()
        session_id = session_of(request.session_id, current_call(), checks)
        if not 1 <= len(request.item_ids) <= LIMITS.batch_items:
            checks.fail("item_ids", f"must hold 1 to {LIMITS.batch_items} ids")
        ids = [
            checks.memory_id(f"item_ids[{place}]", checks.required(f"item_ids[{place}]", item_id))
            for place, item_id in enumerate(request.item_ids)
        ]
        namespace = checks.namespace("namespace_id", request.namespace_id) if request.namespace_id else ""
        kind = kind_from_pb(request.kind, checks, "kind") if request.kind != memory_pb2.KIND_UNSPECIFIED else None
        checks.text("request_id", request.request_id, REQUEST_ID_BYTES)
        checks.done()
        promoted = await self.promoting.promote_items(current_tenant(), session_id, ids, namespace=namespace, kind=kind)
        return pb.PromoteItemsResponse(promotions=map(promotion_to_pb, promoted))

    async def CloseSession(self, request: pb.CloseSessionRequest, context: Any) -> pb.CloseSessionResponse:
        checks = Checks()
        session_id = session_of(request.session_id, current_call(), checks)
        least = checks.number(
            "promote_min_salience", request.HasField("promote_min_salience"), request.promote_min_salience, 0.0, 1.0
        )
        checks.done()
        closed = await self.closing.close(current_tenant(), session_id, least)
        return pb.CloseSessionResponse(
            existed=closed.existed, item_count=closed.item_count, promoted=map(promotion_to_pb, closed.promoted)
        )

    async def Configure(self, request: pb.ConfigureRequest, context: Any) -> pb.ConfigureResponse:
        tenant = current_tenant()
        rules = self.working.rules(tenant)
        if request.from_defaults or request.rules.ByteSize():
            current_caller().require_scope(CONFIGURE_SCOPE)
            rules = rules_from_pb(request.rules, self.default_rules if request.from_defaults else rules, Checks())
            await self.working.configure(tenant, rules)
        return pb.ConfigureResponse(rules=rules_to_pb(rules))


def session_of(named: str, call: CallContext, checks: Checks, path: str = "session_id") -> str:
    """Return the session of a call: the metadata's, because balancers see only that, or the body's if it has none."""
    checks.text(path, named)
    if named and call.session and named != call.session:
        checks.fail(path, "must be empty or equal the metadata 'soma-session'")
    if not named and not call.session:
        checks.fail(path, "name a session here or in the metadata 'soma-session'")
    return call.session or named

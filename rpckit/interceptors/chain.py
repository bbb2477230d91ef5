"""The chain every call passes, as one grpc interceptor.

    request id → telemetry → errors → deadline → server admission → authenticate → tenant → tenant admission
    → rate limit → handler

Telemetry stands outside errors and all gates, so it counts what they refuse, with the code that was sent. One
interceptor instead of nine, because grpc pays for each one on every call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc

from rpckit.interceptors import errors, request_id
from rpckit.interceptors.admission import AdmissionLimits, Drain, ServerAdmission, TenantAdmission
from rpckit.interceptors.authenticate import Authentication, Authenticator
from rpckit.interceptors.deadline import Deadlines
from rpckit.interceptors.tenant import TenantBinding, Tenants
from rpckit.interceptors.wrap import Body, Handler, refusing, wrapped
from rpckit.layer import OPEN_SERVICES, Call, Layer, Method, Wire
from rpckit.metadata import REQUEST_ID
from rpckit.telemetry.calls import CallTelemetry
from soma_contract.errors import Code, FieldViolationError, UnimplementedError


class CallChain(grpc.aio.ServerInterceptor):
    """Runs each call through the layers; the only interceptor a server needs."""

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        telemetry: CallTelemetry,
        drain: Drain,
        deadlines: Deadlines | None = None,
        open_services: Sequence[str] = OPEN_SERVICES,
    ) -> None:
        self._layers = tuple(layers)
        self._telemetry = telemetry
        self._drain = drain
        self._deadlines = deadlines or Deadlines()
        self._open_services = frozenset(open_services)
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler with the chain around it; for a method nobody serves, one that says so."""
        path = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            unknown = Method(path, "_OTHER", is_stream=True, is_open=True)
            return refusing(unknown, self.run, UnimplementedError())
        known = self._wrapped.get(path)
        if known is None or known[0] is not handler:
            known = self._wrapped[path] = (handler, wrapped(handler, self._method(path, handler), self.run))
        return known[1]

    def _method(self, path: str, handler: Handler) -> Method:
        service, _, name = path.lstrip("/").rpartition("/")
        return Method(
            path=path,
            operation=f"{service.rpartition('.')[2]}/{name}",
            is_stream=bool(handler.request_streaming or handler.response_streaming),
            is_open=service in self._open_services,
        )

    async def run(self, method: Method, wire: Wire, body: Body, request: Any) -> Any:
        """Run a handler's body within the chain."""
        remaining_s = self._deadlines.remaining_s(method, wire)
        call = request_id.begin(method, wire, None if remaining_s is None else time.monotonic() + remaining_s)
        self._telemetry.begin(call)
        passed = 0
        try:
            async with asyncio.timeout(self._deadlines.cancel_after_s(remaining_s)) as call.scope:
                self._drain.joined(call)
                _check_metadata(call)
                for layer in self._layers:
                    call.stage = layer.name
                    await layer.enter(call)
                    passed += 1
                call.stage = "handler"
                response = await body(call, request)
        except BaseException as error:  # noqa: BLE001 - answer() raises in every case
            await errors.answer(call, error)
        else:
            _close(call)
            return response
        finally:
            for layer in self._layers[:passed][::-1]:
                layer.leave(call)
            self._drain.left(call)
            self._telemetry.finish(call)


def _check_metadata(call: Call) -> None:
    if call.received.violations and not call.method.is_open:
        raise FieldViolationError(violations=call.received.violations)


def _close(call: Call) -> None:
    code = call.wire.code()
    if isinstance(code, grpc.StatusCode):
        call.code = Code(code.value[0])
    own = ((REQUEST_ID, call.context.request_id),)
    call.wire.set_trailing_metadata((*(call.wire.trailing_metadata() or ()), *own))


def call_chain(
    authenticator: Authenticator,
    *,
    drain: Drain,
    telemetry: CallTelemetry | None = None,
    limits: AdmissionLimits | None = None,
    deadlines: Deadlines | None = None,
    scopes: Mapping[str, str] | None = None,
    tenantless: Sequence[str] = (),
    tenants: Tenants | None = None,
    rate_limit: Layer | None = None,
    open_services: Sequence[str] = OPEN_SERVICES,
) -> CallChain:
    """The chain in its order.

    ``scopes`` maps method paths, or prefixes such as ``/soma.admin.v1.``, to the scope they need. ``tenantless`` lists
    prefixes of methods that may be called for no tenant. ``tenants`` is asked about a tenant named by a caller that
    may name any. ``rate_limit`` comes last, when the tenant is known.
    """
    limits = limits or AdmissionLimits()
    layers: list[Layer] = [
        ServerAdmission(limits, drain),
        Authentication(authenticator, scopes),
        TenantBinding(tenantless, tenants),
        TenantAdmission(limits),
    ]
    if rate_limit is not None:
        layers.append(rate_limit)
    return CallChain(
        layers,
        telemetry=telemetry or CallTelemetry(),
        drain=drain,
        deadlines=deadlines,
        open_services=open_services,
    )

"""What a handler, and everything it calls, may know about the call it runs in.

The chain of interceptors puts a ``CallContext`` into a context variable; grpc.aio gives each call its own context, so
tasks started by a handler inherit it and other calls never see it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from soma_contract.errors import CredentialsMissingError, TenantForbiddenError
from soma_contract.tenant import Caller, Tenant


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The W3C trace headers of a call, as received and already checked for form; empty where absent."""

    traceparent: str = ""
    tracestate: str = ""
    baggage: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and when a write was first accepted, told by a brain that delivers it later."""

    brain_id: str
    at: datetime


NO_TRACE = TraceContext()


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call: who, for whom, until when."""

    method: str
    """The full path, ``/soma.memory.v1.MemoryService/Recall``."""
    request_id: str
    deadline: float | None = None
    """The end of the call on ``time.monotonic()``'s scale; None for a stream without one."""
    trace: TraceContext = NO_TRACE
    persona: str = ""
    session: str = ""
    namespace: str = ""
    """The namespace of ``x-soma-namespace``, a default for requests that name none."""
    caller: Caller | None = None
    tenant: Tenant | None = None
    origin: Origin | None = None

    def remaining_s(self) -> float | None:
        """Seconds left, not below 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_current: ContextVar[CallContext] = ContextVar("soma_call")


def current_call() -> CallContext:
    """The call this code runs in; LookupError outside of one."""
    return _current.get()


def current_call_or_none() -> CallContext | None:
    """The call this code runs in, or None in a worker or a test."""
    return _current.get(None)


def current_caller() -> Caller:
    """Who calls; raises CredentialsMissingError in a call that needs no credentials."""
    caller = _current.get().caller
    if caller is None:
        raise CredentialsMissingError
    return caller


def current_tenant() -> Tenant:
    """The tenant of the call; raises TenantForbiddenError if the caller named none and has not exactly one."""
    tenant = _current.get().tenant
    if tenant is None:
        raise TenantForbiddenError("this call needs a tenant: name one in the metadata 'soma-tenant'")
    return tenant


def enter_call(call: CallContext) -> None:
    """Make ``call`` the current one for the rest of this context; for the chain, whose context ends with the call."""
    _current.set(call)


@contextmanager
def within_call(call: CallContext) -> Iterator[CallContext]:
    """Run a block as part of ``call``; for workers that carry a call's identity on, and for tests."""
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)

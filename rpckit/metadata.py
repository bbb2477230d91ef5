"""Call metadata: the names of the keys, a strict reading of them, and what is passed on to the next server.

A key of ours may be sent once, in one spelling: two values are refused even if they are equal, because two readers of
the same call could pick different ones. Keys that are not ours are ignored.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rpckit.call import NO_TRACE, CallContext, Origin, TraceContext
from soma_contract.errors import Violation
from soma_contract.tenant import Tenant, is_tenant_name

AUTHORIZATION = "authorization"
TENANT = "soma-tenant"
TENANT_ALIAS = "x-soma-tenant"
NAMESPACE_ALIAS = "x-soma-namespace"
PERSONA = "soma-persona"
SESSION = "soma-session"
REQUEST_ID = "soma-request-id"
ORIGIN = "soma-origin"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
BAGGAGE = "baggage"

STATUS_DETAILS = "grpc-status-details-bin"
RETRY_PUSHBACK = "grpc-retry-pushback-ms"

LABEL_BYTES = 256
TRACE_BYTES = 1024
"""Longer trace state or baggage is dropped: it shares 8 KiB with everything else a call carries."""

_ONCE = frozenset(
    {AUTHORIZATION, TENANT, TENANT_ALIAS, NAMESPACE_ALIAS, PERSONA, SESSION, REQUEST_ID, ORIGIN, TRACEPARENT}
)
_JOINED = frozenset({TRACESTATE, BAGGAGE})
_OURS = _ONCE | _JOINED

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_LABEL = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_ORIGIN = re.compile(r"([A-Za-z0-9._-]{1,64});([0-9]{1,16})")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Received:
    """What a caller sent, read but not yet believed; None or empty where absent."""

    request_id: str
    """The caller's, or a new one if it sent none or a malformed one."""
    authorization: str | None
    tenant: str | None
    namespace: str
    persona: str
    session: str
    origin: Origin | None
    trace: TraceContext
    violations: tuple[Violation, ...]
    """What is wrong with the metadata; a call with any is refused."""


def new_request_id() -> str:
    """A fresh request id, 24 hexadecimal digits."""
    return secrets.token_hex(12)


def read(metadata: Iterable[tuple[str, str | bytes]]) -> Received:
    """Read a call's metadata; never raises, what is wrong stands in ``violations``."""
    values: dict[str, str] = {}
    violations: list[Violation] = []
    for key, value in metadata:
        if key not in _OURS:
            continue
        if not isinstance(value, str):
            violations.append(_wrong(key, "must be ASCII text"))
        elif key not in values:
            values[key] = value
        elif key in _JOINED:
            values[key] += f",{value}"
        elif key == TRACEPARENT:
            values[key] = ""  # the standard says: two parents are none
        else:
            violations.append(_wrong(key, "must be sent once"))

    request_id = values.get(REQUEST_ID)
    if request_id is None:
        request_id = new_request_id()
    elif _REQUEST_ID.fullmatch(request_id) is None:
        violations.append(_wrong(REQUEST_ID, "must be 1-128 characters of A-Z, a-z, 0-9 and ._:/+=@-"))
        request_id = new_request_id()
    tenant, namespace = _tenant(values, violations)
    return Received(
        request_id=request_id,
        authorization=values.get(AUTHORIZATION),
        tenant=tenant,
        namespace=namespace,
        persona=_label(PERSONA, values, violations),
        session=_label(SESSION, values, violations),
        origin=_origin(values, violations),
        trace=_trace(values),
        violations=tuple(violations),
    )


def _wrong(key: str, description: str) -> Violation:
    return Violation(f"metadata.{key}", description)


def _tenant(values: dict[str, str], violations: list[Violation]) -> tuple[str | None, str]:
    sent = [key for key in (TENANT, TENANT_ALIAS, NAMESPACE_ALIAS) if key in values]
    if not sent:
        return None, ""
    if len(sent) > 1:
        violations.append(_wrong(sent[0], f"must be sent once; {' and '.join(sent[1:])} mean the same"))
        return None, ""
    key, namespace = sent[0], ""
    name = values[key]
    if key == NAMESPACE_ALIAS:
        name, colon, namespace = name.partition(":")
        if not colon or len(namespace) > LABEL_BYTES or _LABEL.fullmatch(namespace) is None:
            violations.append(_wrong(key, "must be 'tenant:namespace'"))
            return None, ""
    if not is_tenant_name(name):
        violations.append(_wrong(key, "must be a tenant's exact name: 1-63 characters of a-z, 0-9, '.', '_', '-'"))
        return None, ""
    return name, namespace


def _label(key: str, values: dict[str, str], violations: list[Violation]) -> str:
    value = values.get(key)
    if value is None:
        return ""
    if len(value) > LABEL_BYTES or _LABEL.fullmatch(value) is None:
        violations.append(_wrong(key, f"must be 1-{LABEL_BYTES} printable ASCII characters, no space at the ends"))
        return ""
    return value


def _origin(values: dict[str, str], violations: list[Violation]) -> Origin | None:
    value = values.get(ORIGIN)
    if value is None:
        return None
    match = _ORIGIN.fullmatch(value)
    if match is None:
        violations.append(_wrong(ORIGIN, "must be '<brain id>;<microseconds since 1970>'"))
        return None
    return Origin(match[1], _EPOCH + timedelta(microseconds=int(match[2])))


def _trace(values: dict[str, str]) -> TraceContext:
    if TRACEPARENT not in values and BAGGAGE not in values:
        return NO_TRACE
    # A broken parent starts a new trace rather than failing the call; its state then means nothing.
    parent = values.get(TRACEPARENT, "")
    if _TRACEPARENT.fullmatch(parent) is None:
        parent = ""
    state, baggage = values.get(TRACESTATE, ""), values.get(BAGGAGE, "")
    if len(state) > TRACE_BYTES or not parent:
        state = ""
    if len(baggage) > TRACE_BYTES:
        baggage = ""
    return TraceContext(parent, state, baggage) if parent or baggage else NO_TRACE


def outgoing(
    call: CallContext | None,
    tenant: Tenant,
    *,
    origin: Origin | None = None,
    request_id: str | None = None,
    trace: TraceContext | None = None,
) -> tuple[tuple[str, str], ...]:
    """The metadata of a call to the next server, on behalf of ``tenant``.

    Takes request id, persona, session and trace from ``call`` unless given; never the caller's credentials, which end
    at the server they were sent to.
    """
    pairs = [(TENANT, tenant.name)]
    if request_id or call:
        pairs.append((REQUEST_ID, request_id or (call.request_id if call else "")))
    if call and call.persona:
        pairs.append((PERSONA, call.persona))
    if call and call.session:
        pairs.append((SESSION, call.session))
    if origin:
        pairs.append((ORIGIN, f"{origin.brain_id};{(origin.at - _EPOCH) // timedelta(microseconds=1)}"))
    trace = trace or (call.trace if call else NO_TRACE)
    for key, value in ((TRACEPARENT, trace.traceparent), (TRACESTATE, trace.tracestate), (BAGGAGE, trace.baggage)):
        if value:
            pairs.append((key, value))
    return tuple(pairs)

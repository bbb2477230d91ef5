"""Reading call metadata: total, strict, and the inverse of writing it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpckit.call import CallContext, Origin, TraceContext
from rpckit.metadata import TRACE_BYTES, new_request_id, outgoing, read
from soma_contract.tenant import admin_tenant

KEYS = st.sampled_from(
    [
        "authorization",
        "soma-tenant",
        "x-soma-tenant",
        "x-soma-namespace",
        "soma-persona",
        "soma-session",
        "soma-request-id",
        "soma-origin",
        "traceparent",
        "tracestate",
        "baggage",
        "soma-unknown",
        "user-agent",
    ]
)
VALUES = st.one_of(st.text(max_size=80), st.binary(max_size=20), st.sampled_from(["a", "a:b", "b;1", ""]))
LABEL = st.from_regex(r"[!-~]([ -~]{0,40}[!-~])?", fullmatch=True)
TENANT = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=12))
def test_reading_never_fails_and_believes_nothing_that_is_doubled(pairs: list[tuple[str, str | bytes]]) -> None:
    received = read(pairs)
    assert received.request_id
    doubled = {key for key, _ in pairs if [other for other, _ in pairs].count(key) > 1}
    refused = {violation.field.removeprefix("metadata.") for violation in received.violations}
    strict = {"authorization", "soma-tenant", "soma-persona", "soma-session", "soma-request-id", "soma-origin"}
    assert doubled & strict <= refused
    named = [key for key, _ in pairs if key in {"soma-tenant", "x-soma-tenant", "x-soma-namespace"}]
    assert received.tenant is None or len(named) == 1 or received.violations


@given(
    tenant=TENANT,
    persona=st.one_of(st.just(""), LABEL),
    session=st.one_of(st.just(""), LABEL),
    micros=st.integers(0, 10**15),
    baggage=st.sampled_from(["", "k=v"]),
)
def test_what_one_server_passes_on_the_next_one_reads(
    tenant: str, persona: str, session: str, micros: int, baggage: str
) -> None:
    trace = TraceContext(f"00-{'a' * 32}-{'b' * 16}-01", "x=1", baggage)
    origin = Origin("brain-1", datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros))
    call = CallContext("/x.Y/Z", new_request_id(), trace=trace, persona=persona, session=session)
    received = read(outgoing(call, admin_tenant(tenant, reason="test"), origin=origin))
    assert received.violations == ()
    assert (received.tenant, received.request_id) == (tenant, call.request_id)
    assert (received.persona, received.session) == (persona, session)
    assert (received.origin, received.trace) == (origin, trace)
    assert received.authorization is None


def test_outside_of_a_call_only_the_tenant_is_passed_on() -> None:
    assert outgoing(None, admin_tenant("a", reason="test")) == (("soma-tenant", "a"),)


def test_trace_state_and_baggage_may_come_in_several_parts_and_not_too_long() -> None:
    parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    assert read([parent, ("tracestate", "a=1"), ("tracestate", "b=2")]).trace.tracestate == "a=1,b=2"
    assert read([parent, ("baggage", "k=" + "v" * TRACE_BYTES)]).trace.baggage == ""
    assert read([("tracestate", "a=1")]).trace == TraceContext()
    assert read([parent, parent]).trace == TraceContext()


@pytest.mark.parametrize("micros", [0, 1, 1_700_000_000_000_001, 9_999_999_999_999_999])
def test_an_origin_is_exact_to_the_microsecond(micros: int) -> None:
    origin = read([("soma-origin", f"b;{micros}")]).origin
    assert origin is not None
    assert (origin.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == micros

"""What the client sends with every call, and what it makes of a call that fails."""

from __future__ import annotations

import re

import grpc
import pytest

from soma_client import SomaClient
from soma_client.calling import Identity
from soma_contract.errors import (
    Code,
    CredentialsInvalidError,
    FieldViolationError,
    MemoryNotFoundError,
    OverloadedError,
    TenantForbiddenError,
    UnavailableError,
    VersionMismatchError,
)
from tests.unit.client.shelf import KEY, Shelf

ABSENT = "0190b6a0-7c1e-7000-8000-000000000000"


async def test_every_call_names_key_tenant_persona_session_and_a_request_id(shelf: Shelf, address: str) -> None:
    async with SomaClient.connect(address, key=KEY, tenant="a", persona="planner", session="s-1") as soma:
        await soma.remember("tea")

    sent = shelf.metadata
    assert sent["authorization"] == f"Bearer {KEY}"
    assert (sent["soma-tenant"], sent["soma-persona"], sent["soma-session"]) == ("a", "planner", "s-1")
    assert re.fullmatch(r"[0-9a-f]{24}", sent["soma-request-id"])


async def test_the_headers_of_the_current_span_travel_with_a_call(shelf: Shelf, address: str) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "tracestate": "a=b", "unrelated": "stays here"}

    async with SomaClient.connect(address, key=KEY, tenant="a", trace=lambda: headers) as soma:
        await soma.remember("tea")

    assert (shelf.metadata["traceparent"], shelf.metadata["tracestate"]) == (parent, "a=b")
    assert "unrelated" not in shelf.metadata


async def test_a_write_without_a_request_id_gets_one_and_a_retry_carries_the_same(
    shelf: Shelf, soma: SomaClient
) -> None:
    shelf.failures = [UnavailableError(retry_after_s=0.01), UnavailableError(retry_after_s=0.01)]

    await soma.remember("tea")

    sent = [request.request_id for _, request in shelf.calls]
    assert len(sent) == 3
    assert set(sent) == {sent[0]}
    assert sent[0] != ""
    assert shelf.metadata["soma-request-id"] == sent[0]


async def test_what_is_not_passing_is_not_tried_again(shelf: Shelf, soma: SomaClient) -> None:
    shelf.failures = [OverloadedError(retry_after_s=0.01)]

    with pytest.raises(OverloadedError) as caught:
        await soma.remember("tea")

    assert len(shelf.calls) == 1
    assert caught.value.retry_after_s == 0.01


async def test_errors_come_back_as_they_were_raised(shelf: Shelf, soma: SomaClient) -> None:
    shelf.failures = [VersionMismatchError(memory_id="m", expected="1", actual="2")]

    with pytest.raises(VersionMismatchError) as caught:
        await soma.remember("tea", if_match=1)

    assert caught.value.metadata == {"memory_id": "m", "expected": "1", "actual": "2"}
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)


async def test_violations_keep_their_paths(soma: SomaClient) -> None:
    with pytest.raises(FieldViolationError) as caught:
        await soma.remember("tea", tags=["", "x" * 300])

    assert [violation.field for violation in caught.value.violations] == ["memory.tags[0]", "memory.tags[1]"]


async def test_what_is_not_there_is_told(soma: SomaClient) -> None:
    with pytest.raises(MemoryNotFoundError) as caught:
        await soma.get(ABSENT)

    assert caught.value.metadata["memory_id"] == ABSENT


async def test_a_wrong_key_and_a_foreign_tenant_are_told_apart(soma: SomaClient) -> None:
    with pytest.raises(CredentialsInvalidError):
        await soma.bound(key="soma_0_wrong").get(ABSENT)
    with pytest.raises(TenantForbiddenError):
        await soma.bound(tenant="c").get(ABSENT)


async def test_a_server_that_is_not_there_is_told_as_unavailable_and_named() -> None:
    async with SomaClient.connect("127.0.0.1:1", key=KEY) as soma:
        with pytest.raises(UnavailableError, match=r"nothing answers at 127\.0\.0\.1:1") as called:
            await soma.get(ABSENT, timeout_s=0.3)
        with pytest.raises(UnavailableError, match="soma up"):
            await soma.ready(0.2)

    assert called.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("identity", "field"),
    [
        (Identity(key="ключ"), "metadata.authorization"),
        (Identity(tenant="Not A Tenant"), "metadata.soma-tenant"),
        (Identity(persona="ü"), "metadata.soma-persona"),
        (Identity(session=" s"), "metadata.soma-session"),
    ],
)
def test_an_identity_that_cannot_travel_is_refused_before_a_call(identity: Identity, field: str) -> None:
    with pytest.raises(FieldViolationError) as caught:
        identity.pairs()

    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_key_is_not_shown_by_accident() -> None:
    assert KEY not in repr(Identity(key=KEY, tenant="a"))

"""Who may call, and for whom: metadata, credentials, tenants, scopes."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rpckit.call import current_call, current_caller, current_tenant
from rpckit.health import Health
from rpckit.metadata import outgoing
from rpckit.server import add_reflection
from rpckit.status import error_from_rpc
from soma_contract.errors import SomaError, TenantSuspendedError
from tests.servicers.rpckit.kit import (
    A,
    Stand,
    bearer,
    both_streams,
    client_stream,
    server_stream,
    stand,
    unary,
)


def seen() -> bytes:
    call = current_call()
    return json.dumps(
        {
            "tenant": current_tenant().name,
            "caller": current_caller().credential_id,
            "persona": call.persona,
            "session": call.session,
            "namespace": call.namespace,
            "origin": call.origin and [call.origin.brain_id, call.origin.at.isoformat()],
            "trace": call.trace.traceparent,
        }
    ).encode()


async def who(request: Any, context: Any) -> Any:
    return seen()


async def who_all(request: Any, context: Any) -> Any:
    yield seen()


WHO = unary(who)


async def told(on: Stand, metadata: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await on.unary("Who", metadata=metadata))
    return answer


async def refusal(on: Stand, metadata: Any, name: str = "Who") -> SomaError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await on.unary(name, metadata=metadata)
    return error_from_rpc(caught.value)


async def test_the_tenant_comes_from_the_credential() -> None:
    async with stand({"Who": WHO}) as on:
        assert (await told(on, bearer("key-a")))["tenant"] == "a"
        assert (await told(on, bearer("key-b")))["tenant"] == "b"


@pytest.mark.parametrize("handler", [unary(who), server_stream(who_all), client_stream(who), both_streams(who_all)])
async def test_handlers_of_every_kind_see_their_call(handler: Any) -> None:
    async with stand({"Who": handler}) as on:
        answers = await on.call("Who", handler, metadata=bearer("key-a", soma_persona="p", soma_session="s"))
    assert [(json.loads(each)["tenant"], json.loads(each)["persona"]) for each in answers] == [("a", "p")]


@pytest.mark.parametrize("key", ["soma-tenant", "x-soma-tenant"])
async def test_one_of_several_tenants_is_chosen_by_metadata(key: str) -> None:
    async with stand({"Who": WHO}) as on:
        assert (await told(on, (*bearer("key-ab"), (key, "b"))))["tenant"] == "b"
        assert (await refusal(on, bearer("key-ab"))).reason == "TENANT_FORBIDDEN"


async def test_the_namespace_alias_names_tenant_and_namespace() -> None:
    async with stand({"Who": WHO}) as on:
        answer = await told(on, (*bearer("key-ab"), ("x-soma-namespace", "b:work notes")))
    assert (answer["tenant"], answer["namespace"]) == ("b", "work notes")


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ([("soma-tenant", "a"), ("soma-tenant", "a")], "metadata.soma-tenant"),
        ([("soma-tenant", "a"), ("soma-tenant", "b")], "metadata.soma-tenant"),
        ([("soma-tenant", "a"), ("x-soma-tenant", "a")], "metadata.soma-tenant"),
        ([("soma-tenant", "a"), ("x-soma-namespace", "a:x")], "metadata.soma-tenant"),
        ([("x-soma-tenant", "a"), ("x-soma-namespace", "b:x")], "metadata.x-soma-tenant"),
        ([("soma-tenant", "A")], "metadata.soma-tenant"),
        ([("soma-tenant", "a,b")], "metadata.soma-tenant"),
        ([("soma-tenant", "%61")], "metadata.soma-tenant"),
        ([("soma-tenant", "a/../b")], "metadata.soma-tenant"),
        ([("soma-tenant", "a" * 64)], "metadata.soma-tenant"),
        ([("soma-tenant", "")], "metadata.soma-tenant"),
        ([("x-soma-namespace", "a")], "metadata.x-soma-namespace"),
        ([("x-soma-namespace", "a:")], "metadata.x-soma-namespace"),
        ([("x-soma-namespace", "A:x")], "metadata.x-soma-namespace"),
        ([("soma-persona", "p"), ("soma-persona", "p")], "metadata.soma-persona"),
        ([("soma-persona", "p" * 257)], "metadata.soma-persona"),
        ([("soma-session", "s"), ("soma-session", "t")], "metadata.soma-session"),
        ([("soma-request-id", "1"), ("soma-request-id", "2")], "metadata.soma-request-id"),
        ([("soma-request-id", '"},{"code":"OK')], "metadata.soma-request-id"),
        ([("soma-origin", "brain;tomorrow")], "metadata.soma-origin"),
        ([("authorization", "Bearer key-b")], "metadata.authorization"),
    ],
)
async def test_doubled_and_malformed_metadata_is_refused_by_name(metadata: list[tuple[str, str]], field: str) -> None:
    async with stand({"Who": WHO}) as on:
        error = await refusal(on, (*A, *metadata))
        assert on.keys.asked == 0
    assert error.reason == "FIELD_VIOLATION"
    assert [violation.field for violation in error.violations] == [field]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        ((("authorization", "key-a"),), "CREDENTIALS_INVALID"),
        ((("authorization", "Basic key-a"),), "CREDENTIALS_INVALID"),
        ((("authorization", "Bearer  key-a"),), "CREDENTIALS_INVALID"),
        ((("authorization", "Bearer "),), "CREDENTIALS_INVALID"),
        (bearer("key-unknown"), "CREDENTIALS_INVALID"),
        (bearer("key-expired"), "CREDENTIALS_EXPIRED"),
        (bearer("key-a", soma_tenant="b"), "TENANT_FORBIDDEN"),
        (bearer("key-a", x_soma_namespace="b:x"), "TENANT_FORBIDDEN"),
        (bearer("key-a", soma_tenant="nobody"), "TENANT_FORBIDDEN"),
        (bearer("key-suspended"), "TENANT_SUSPENDED"),
        (bearer("key-confined", x_soma_namespace="a:private"), "SCOPE_MISSING"),
        (bearer("key-brain"), "TENANT_FORBIDDEN"),
    ],
)
async def test_a_caller_that_may_not_is_refused(metadata: Any, reason: str) -> None:
    async with stand({"Who": WHO}) as on:
        error = await refusal(on, metadata)
        assert await on.counted("TestService/Who", error.code.name) == 1
    assert error.reason == reason
    assert not error.metadata or reason == "SCOPE_MISSING"


async def test_a_confined_caller_reaches_its_namespaces() -> None:
    async with stand({"Who": WHO}) as on:
        for namespace in ("work", "shared-plans"):
            answer = await told(on, bearer("key-confined", x_soma_namespace=f"a:{namespace}"))
            assert answer["namespace"] == namespace


async def test_scopes_are_asked_for_by_method_and_by_prefix() -> None:
    scopes = {"/test.v1.": "memory:read", "/test.v1.TestService/Write": "memory:write"}
    async with stand({"Who": WHO, "Write": WHO}, scopes=scopes) as on:
        one_of_two = bearer("key-ab", soma_tenant="a")
        assert (await told(on, one_of_two))["caller"] == "cred-ab"
        error = await refusal(on, one_of_two, "Write")
        assert (error.reason, error.metadata) == ("SCOPE_MISSING", {"scope": "memory:write"})
        await on.unary("Write", metadata=bearer("key-a"))


async def test_only_a_credential_that_may_act_as_others_names_any_tenant_and_origin() -> None:
    origin = "brain-1;1700000000000001"
    async with stand({"Who": WHO}) as on:
        brain = await told(on, bearer("key-brain", soma_tenant="anybody", soma_origin=origin))
        agent = await told(on, bearer("key-a", soma_origin=origin))
    assert brain["tenant"] == "anybody"
    assert brain["origin"] == ["brain-1", datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=UTC).isoformat()]
    assert agent["origin"] is None


async def test_a_tenant_that_a_server_does_not_admit_is_refused_even_to_an_acting_caller() -> None:
    class NobodyButA:
        async def admit(self, name: str) -> None:
            if name != "a":
                raise TenantSuspendedError

    async with stand({"Who": WHO}, tenants=NobodyButA()) as on:
        assert (await told(on, bearer("key-brain", soma_tenant="a")))["tenant"] == "a"
        assert (await refusal(on, bearer("key-brain", soma_tenant="b"))).reason == "TENANT_SUSPENDED"


async def test_a_method_without_tenant_may_be_called_for_none_and_asks_for_one_by_name() -> None:
    async def nobody(request: Any, context: Any) -> Any:
        return str(current_call().tenant).encode()

    async with stand({"Who": WHO, "List": unary(nobody)}, tenantless=("/test.v1.TestService/",)) as on:
        assert await on.unary("List", metadata=bearer("key-ab")) == b"None"
        assert (await refusal(on, bearer("key-ab"))).reason == "TENANT_FORBIDDEN"


async def test_what_is_passed_on_names_tenant_session_and_trace_but_no_credentials() -> None:
    async def forward(request: Any, context: Any) -> Any:
        call = current_call()
        assert call.tenant is not None
        return json.dumps(outgoing(call, call.tenant, origin=call.origin)).encode()

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = {"soma_session": "s", "soma_persona": "p", "soma_request_id": "r", "soma_origin": "b1;1700000000000001"}
    async with stand({"Forward": unary(forward)}) as on:
        metadata = bearer("key-brain", soma_tenant="t", traceparent=parent, tracestate="x=1", baggage="k=v", **sent)
        passed = dict(json.loads(await on.unary("Forward", metadata=metadata)))
    expected = dict(metadata)
    del expected["authorization"]
    assert expected == passed


async def test_a_broken_trace_parent_starts_anew_instead_of_failing_the_call() -> None:
    async with stand({"Who": WHO}) as on:
        answers = [
            await told(on, bearer("key-a", traceparent=parent))
            for parent in (
                "nonsense",
                "00-" + "0" * 32 + "-b7ad6b7169203331-01",
                "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
            )
        ]
    assert [answer["trace"] for answer in answers] == ["", "", ""]


async def test_health_and_reflection_answer_without_credentials() -> None:
    def prepare(server: grpc.aio.Server) -> None:
        Health().add_to(server)
        add_reflection(server, ["grpc.health.v1.Health"])

    async with stand({"Who": WHO}, prepare=prepare) as on:
        health: Any = health_pb2_grpc.HealthStub(on.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(on.channel)
        asked = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [service.name async for each in asked for service in each.list_services_response.service]
        assert on.keys.asked == 0
    assert names == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]


async def test_a_server_does_not_list_what_reflection_cannot_find() -> None:
    def prepare(server: grpc.aio.Server) -> None:
        add_reflection(server, ["x.Y"])

    with pytest.raises(KeyError, match=r"x\.Y"):
        async with stand({"Who": WHO}, prepare=prepare):
            pass


async def test_two_calls_at_once_never_see_each_others_tenant() -> None:
    async def slowly(request: Any, context: Any) -> Any:
        before = current_tenant().name
        await asyncio.sleep(0)
        return f"{before} {current_tenant().name}".encode()

    async with stand({"Who": unary(slowly)}) as on:
        calls = [on.unary("Who", metadata=bearer(f"key-{name}")) for name in "ab" * 50]
        answers = await asyncio.gather(*calls)
    assert answers == [f"{name} {name}".encode() for name in "ab" * 50]

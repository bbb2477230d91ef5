"""clients/service_config.json says what the idempotency levels say, and gRPC does what it says."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

from soma.admin.v1 import tenant_service_pb2 as admin_pb
from soma.admin.v1 import tenant_service_pb2_grpc as admin_rpc
from tests.contract.buf import ROOT
from tests.contract.conftest import Contract, Rpc

CONFIG = json.loads((ROOT / "clients" / "service_config.json").read_text())


def policies() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in CONFIG["methodConfig"]:
        for name in entry["name"]:
            path = f"{name['service']}/{name['method']}"
            assert path not in found
            found[path] = entry
    return found


def attempts(rpc: Rpc) -> int:
    """How often a channel may send a call."""
    level = rpc.method.options.idempotency_level
    if rpc.method.client_streaming or level == MethodOptions.IDEMPOTENCY_UNKNOWN:
        return 1
    return 3 if rpc.method.server_streaming else 4


def test_every_rpc_has_exactly_one_policy(contract: Contract) -> None:
    assert set(policies()) == {rpc.name for rpc in contract.rpcs()}


def test_only_what_may_be_repeated_is_retried(contract: Contract) -> None:
    found = {path: entry.get("retryPolicy", {}).get("maxAttempts", 1) for path, entry in policies().items()}

    assert found == {rpc.name: attempts(rpc) for rpc in contract.rpcs()}


def test_only_unavailability_is_retried() -> None:
    retried = [entry["retryPolicy"] for entry in policies().values() if "retryPolicy" in entry]
    codes = {code for policy in retried for code in policy["retryableStatusCodes"]}

    assert codes == {"UNAVAILABLE"}


def test_long_streams_have_no_deadline_and_other_calls_do(contract: Contract) -> None:
    endless = {path.rpartition("/")[2] for path, entry in policies().items() if "timeout" not in entry}
    fed = {rpc.method.name for rpc in contract.rpcs() if rpc.method.client_streaming}

    assert endless == fed | {"Watch", "ExportRecords", "ExportSubject", "StreamAuditLog"}


class Flaky:
    """Fails each first two calls as a server that is just going away, then answers."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_tenant(self, request: admin_pb.GetTenantRequest, context: Any) -> admin_pb.GetTenantResponse:
        await self._fail_at_first(context)
        return admin_pb.GetTenantResponse()

    async def create_key(self, request: admin_pb.CreateKeyRequest, context: Any) -> admin_pb.CreateKeyResponse:
        await self._fail_at_first(context)
        return admin_pb.CreateKeyResponse()

    async def _fail_at_first(self, context: Any) -> None:
        self.calls += 1
        if self.calls < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "soma.admin.v1.TenantService",
            {
                "GetTenant": grpc.unary_unary_rpc_method_handler(
                    self.get_tenant,
                    admin_pb.GetTenantRequest.FromString,
                    admin_pb.GetTenantResponse.SerializeToString,
                ),
                "CreateKey": grpc.unary_unary_rpc_method_handler(
                    self.create_key,
                    admin_pb.CreateKeyRequest.FromString,
                    admin_pb.CreateKeyResponse.SerializeToString,
                ),
            },
        )


async def test_a_channel_repeats_a_read_and_never_a_key_creation() -> None:
    flaky = Flaky()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((flaky.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        options = [("grpc.service_config", json.dumps(CONFIG))]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = admin_rpc.TenantServiceStub(channel)

            await stub.GetTenant(admin_pb.GetTenantRequest())
            calls_of_the_read, flaky.calls = flaky.calls, 0
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateKey(admin_pb.CreateKeyRequest())

        assert calls_of_the_read == 3
        assert flaky.calls == 1
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(None)

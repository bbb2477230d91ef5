"""What the brain's own key may do at the memory server: speak for any tenant, and nothing that agents may not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from tests.support.stack import Agent, Office

pytestmark = pytest.mark.stores


async def test_it_speaks_for_any_tenant_and_administers_none(office: Office) -> None:
    key = (office.stack.directory.place("secrets") / "brain.key").read_text().strip()
    agent = await office.agent()
    spoken = Agent(office.memory, key, agent.tenant)
    stored = await spoken.remember("said for another")
    assert "said for another" == (await agent.get(stored.memory.memory_id)).text

    tenants, operator = tenant_rpc.TenantServiceStub(office.memory), operator_rpc.OperatorServiceStub(office.memory)
    metadata = spoken.metadata
    forbidden: list[Callable[[], Awaitable[object]]] = [
        lambda: tenants.CreateTenant(tenant_pb.CreateTenantRequest(), metadata=metadata),
        lambda: tenants.CreateKey(tenant_pb.CreateKeyRequest(tenants=[agent.tenant], scopes=["*"]), metadata=metadata),
        lambda: tenants.ListTenants(tenant_pb.ListTenantsRequest(), metadata=metadata),
        lambda: operator.RebuildIndex(operator_pb.RebuildIndexRequest(), metadata=metadata),
        lambda: operator.Drain(operator_pb.DrainRequest(), metadata=metadata),
    ]
    for call in forbidden:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call()
        assert grpc.StatusCode.PERMISSION_DENIED is refused.value.code()

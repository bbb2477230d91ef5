"""What administrators may do to tenants, and to whose."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from soma.admin.v1 import tenant_service_pb2 as pb
from soma.admin.v1 import tenant_service_pb2_grpc as rpc
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma_contract.errors import FieldViolationError
from tests.integration.agents.test_hostile_input import refusal
from tests.support.stack import Agent, Office


class Administrator:
    """Someone with a key, at the memory server."""

    def __init__(self, office: Office, bearer: str = "") -> None:
        self._stub: Any = rpc.TenantServiceStub(office.memory)
        self._metadata = [("authorization", f"Bearer {bearer}")] if bearer else office.admin_metadata

    async def do(self, name: str, **fields: Any) -> Any:
        """Call an rpc by its name."""
        request = getattr(pb, f"{name}Request")(**fields)
        return await getattr(self._stub, name)(request, metadata=self._metadata, timeout=20)

    async def refusal(self, name: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """Code and reason of a call that must be refused."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.do(name, **fields)
        return refused.value.code(), str(refused.value.details())


async def administrator_of(office: Office, agent: Agent) -> Administrator:
    made = await Administrator(office).do("CreateKey", tenants=[agent.tenant], scopes=["admin:*"])
    return Administrator(office, made.bearer)


async def answered(agent: Agent, memory_id: str) -> grpc.StatusCode:
    try:
        await agent.get(memory_id)
    except grpc.aio.AioRpcError as refused:
        return refused.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_a_suspended_tenant_is_refused_until_it_is_resumed(office: Office, through: str) -> None:
    agent, operator = await office.agent(through=through), Administrator(office)
    kept = (await agent.remember("The boiler was serviced in May.")).memory
    suspended = (await operator.do("SuspendTenant", tenant=agent.tenant, cause="unpaid")).tenant
    assert (pb.TENANT_STATE_SUSPENDED, "unpaid") == (suspended.state, suspended.suspend_cause)
    async with asyncio.timeout(10):  # a brain learns of it within five seconds
        while grpc.StatusCode.PERMISSION_DENIED != await answered(agent, kept.memory_id):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
    assert pb.TENANT_STATE_ACTIVE == (await operator.do("ResumeTenant", tenant=agent.tenant)).tenant.state
    async with asyncio.timeout(10):
        while grpc.StatusCode.OK != await answered(agent, kept.memory_id):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)


async def test_an_administrator_of_one_tenant_reaches_no_other(office: Office) -> None:
    own, other = await office.agent(), await office.agent()
    administrator = await administrator_of(office, own)
    assert own.tenant == (await administrator.do("GetTenant", tenant=own.tenant)).tenant.tenant
    assert own.tenant == (await administrator.do("GetTenant")).tenant.tenant, "the key's only tenant is its own"
    key = (await administrator.do("CreateKey", tenants=[own.tenant], scopes=["admin:read"])).key
    theirs = (await Administrator(office).do("CreateKey", tenants=[other.tenant])).key

    denied = grpc.StatusCode.PERMISSION_DENIED
    for tenant in (other.tenant, "nobody-at-all"):
        record = pb.TenantRecord(tenant=tenant, display_name="mine now")
        calls: dict[str, dict[str, Any]] = {
            "GetTenant": {"tenant": tenant},
            "ListKeys": {"tenant": tenant},
            "CreateKey": {"tenants": [own.tenant, tenant], "scopes": ["admin:read"]},
            "UpdateTenant": {"tenant": record, "update_mask": {"paths": ["display_name"]}},
            "SuspendTenant": {"tenant": tenant},
            "CreateTenant": {"tenant": record},
        }
        for name, fields in calls.items():
            assert denied == (await administrator.refusal(name, **fields))[0], name
    assert grpc.StatusCode.NOT_FOUND == (await administrator.refusal("RevokeKey", key_id=theirs.key_id))[0]
    # What is to be given away must be one's own.
    assert denied == (await administrator.refusal("CreateKey", tenants=[own.tenant], scopes=["memory:read"]))[0]
    listed = (await administrator.do("ListTenants", page_size=1000)).tenants
    assert {own.tenant} == {tenant.tenant for tenant in listed}
    assert (await administrator.do("RevokeKey", key_id=key.key_id)).key.HasField("revoke_time")


async def test_weights_of_a_tenant_take_the_place_of_the_presets(office: Office) -> None:
    agent = await office.agent(through="memory")
    administrator = await administrator_of(office, agent)
    await agent.remember("The lamp in the hall flickers.")

    async def weight() -> float:
        hit = (await agent.recall("lamp", explain=True)).hits[0]
        return next(leg.weight for leg in hit.explanation.legs if leg.leg == memory_pb.RECALL_LEG_KEYWORD)

    before = await weight()
    record = pb.TenantRecord(tenant=agent.tenant, recall_weights={"keyword": 0.75})
    changed = await administrator.do("UpdateTenant", tenant=record, update_mask={"paths": ["recall_weights"]})
    assert ({"keyword": 0.75}, 2) == (dict(changed.tenant.recall_weights), changed.tenant.version)
    assert before < 0.75 == await weight(), "at once on the server that was told"
    await administrator.do(
        "UpdateTenant", tenant=pb.TenantRecord(tenant=agent.tenant), update_mask={"paths": ["recall_weights"]}
    )
    assert before == await weight()


async def test_settings_that_nobody_would_heed_are_refused_with_their_path(office: Office) -> None:
    agent, operator = await office.agent(), Administrator(office)

    async def wrong(name: str, **fields: Any) -> set[str]:
        error = await refusal(operator.do(name, **fields))
        assert isinstance(error, FieldViolationError), error
        return {violation.field for violation in error.violations}

    record = pb.TenantRecord(tenant=agent.tenant, recall_weights={"magic": 0.5, "keyword": 2.0}, scorer="unheard-of")
    paths = {"paths": ["recall_weights", "scorer"]}
    assert {"tenant.recall_weights[magic]", "tenant.recall_weights[keyword]", "tenant.scorer"} == await wrong(
        "UpdateTenant", tenant=record, update_mask=paths
    )
    assert {"update_mask"} == await wrong("UpdateTenant", tenant=record)
    assert {"update_mask.paths[0]"} == await wrong("UpdateTenant", tenant=record, update_mask={"paths": ["dedicated"]})
    quotas = pb.TenantRecord(tenant="with-quotas", quotas=pb.Quotas(streams=1), embedding_profile="other")
    assert {"tenant.quotas", "tenant.embedding_profile"} == await wrong("CreateTenant", tenant=quotas)
    code, _ = await operator.refusal("GetTenant", tenant="with-quotas")
    assert grpc.StatusCode.NOT_FOUND == code, "nothing was made of a refused request"
    renamed = pb.TenantRecord(tenant=agent.tenant, display_name="x")
    code, _ = await operator.refusal(
        "UpdateTenant", tenant=renamed, update_mask={"paths": ["display_name"]}, if_match=7
    )
    assert grpc.StatusCode.ABORTED == code

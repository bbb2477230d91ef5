"""One tenant's memories are another tenant's nothing."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from soma.memory.v1 import memory_service_pb2 as pb
from tests.support.stack import Agent, Office


async def refused(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call  # type: ignore[misc]
    return failed.value.code()


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_tenant_a_cannot_see_tenant_b_memories(office: Office, through: str) -> None:
    a, b = await office.agent(through=through), await office.agent(through=through)
    secret = (await b.remember("The vault code is 7741.", key="vault.code")).memory
    await a.remember("The garden gate is green.")

    assert grpc.StatusCode.NOT_FOUND == await refused(a.get(secret.memory_id))
    assert ["The garden gate is green."] == (await a.recall("vault code 7741")).texts
    assert ["The garden gate is green."] == (await a.recall("The vault code is 7741.")).texts
    assert [] == (await a.recall(secret.memory_id)).texts[1:]
    listed = await a.memory.List(pb.ListRequest(), metadata=a.metadata)
    assert ["The garden gate is green."] == [memory.text for memory in listed.memories]
    # The control: its own tenant finds it every way.
    assert secret.text == (await b.get(secret.memory_id)).text
    assert ["The vault code is 7741."] == (await b.recall("vault code")).texts


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_a_key_names_no_tenant_but_its_own(office: Office, through: str) -> None:
    a, b = await office.agent(through=through), await office.agent(through=through)
    posing = Agent(office.brain if through == "brain" else office.memory, "", b.tenant)
    posing.metadata = [a.metadata[0], ("soma-tenant", b.tenant)]
    assert grpc.StatusCode.PERMISSION_DENIED == await refused(posing.recall("anything"))
    assert grpc.StatusCode.PERMISSION_DENIED == await refused(posing.remember("anything"))
    posing.metadata = [a.metadata[0], ("soma-tenant", a.tenant), ("soma-tenant", b.tenant)]
    assert grpc.StatusCode.INVALID_ARGUMENT == await refused(posing.recall("anything"))
    posing.metadata = []
    assert grpc.StatusCode.UNAUTHENTICATED == await refused(posing.recall("anything"))


async def test_100_concurrent_tenants_no_leakage(office: Office) -> None:
    agents = [await office.agent() for _ in range(100)]

    async def work(agent: Agent) -> list[str]:
        await asyncio.gather(*(agent.remember(f"canary {agent.tenant} number {number}") for number in range(3)))
        found = await agent.recall("canary number", limit=200)
        return [text for text in found.texts if agent.tenant not in text] + [
            f"missing {3 - len(found.hits)} of {agent.tenant}" for _ in range(len(found.hits), 3)
        ]

    leaks = await asyncio.gather(*(work(agent) for agent in agents))
    assert [[]] * 100 == leaks


async def test_tenant_isolation_invariant(office: Office) -> None:
    """Ids, keys and coordinates of one tenant mean nothing, or something else, in another."""
    a, b = await office.agent(), await office.agent()
    same_key = [(await agent.remember(f"the format of {agent.tenant}", key="user.format")).memory for agent in (a, b)]
    assert same_key[0].memory_id == same_key[1].memory_id
    for agent, memory in zip((a, b), same_key, strict=True):
        assert f"the format of {agent.tenant}" == (await agent.get(memory.memory_id)).text
    request = pb.ForgetRequest()
    request.target.key.key = "user.format"
    await a.memory.Forget(request, metadata=a.metadata)
    assert grpc.StatusCode.NOT_FOUND == await refused(a.get(same_key[0].memory_id))
    assert f"the format of {b.tenant}" == (await b.get(same_key[1].memory_id)).text


async def test_a_page_token_of_another_tenant_opens_nothing(office: Office) -> None:
    a, b = await office.agent(), await office.agent()
    for agent in (a, b):
        for number in range(3):
            await agent.remember(f"page {number} of {agent.tenant}")
    token = (await b.memory.List(pb.ListRequest(page_size=1), metadata=b.metadata)).next_page_token
    call = a.memory.List(pb.ListRequest(page_size=1, page_token=token), metadata=a.metadata)
    assert grpc.StatusCode.INVALID_ARGUMENT == await refused(call)


async def test_a_memory_that_exists_elsewhere_is_not_told_from_one_that_does_not(office: Office) -> None:
    a, b = await office.agent(), await office.agent()
    theirs = (await b.remember("theirs")).memory.memory_id
    nobodys = "0190b6a0-7c1e-7000-8000-000000000001"
    answers = []
    for memory_id in (theirs, nobodys):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await a.get(memory_id)
        answers.append((failed.value.code(), (failed.value.details() or "").replace(memory_id, "ID")))
    assert answers[0] == answers[1]

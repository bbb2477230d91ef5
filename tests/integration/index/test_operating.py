"""Operators look after the index of a running server."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from tests.support.stack import Office

pytestmark = pytest.mark.processes


class Operator:
    """An operator at the memory server."""

    def __init__(self, office: Office) -> None:
        self.stub = rpc.OperatorServiceStub(office.memory)
        self.metadata = office.admin_metadata

    async def ended(self, job: pb.IndexJob) -> pb.IndexJob:
        """The job when it has ended."""
        async with asyncio.timeout(60):
            while job.state not in (pb.INDEX_JOB_STATE_DONE, pb.INDEX_JOB_STATE_FAILED):
                request = pb.GetIndexJobRequest(job_id=job.job_id)
                job = (await self.stub.GetIndexJob(request, metadata=self.metadata, timeout=20)).job
        return job


async def test_a_comparison_is_asked_for_followed_and_listed(office: Office) -> None:
    operator, agent = Operator(office), await office.agent()
    for number in range(5):
        await agent.remember(f"note {number}")
    await office.indexed()
    request = pb.ReconcileRequest(tenant=agent.tenant, repair=True)
    job = (await operator.stub.Reconcile(request, metadata=operator.metadata, timeout=20)).job
    ended = await operator.ended(job)
    assert (pb.INDEX_JOB_KIND_RECONCILE, pb.INDEX_JOB_STATE_DONE) == (ended.kind, ended.state)
    assert (agent.tenant, 5, 0, 0, 0) == (
        ended.tenant,
        ended.report.compared,
        ended.report.missing,
        ended.report.outdated,
        ended.report.orphaned,
    )
    listed = await operator.stub.ListIndexJobs(
        pb.ListIndexJobsRequest(tenant=agent.tenant), metadata=operator.metadata, timeout=20
    )
    assert [ended] == list(listed.jobs)


async def test_the_status_tells_collections_rows_and_the_last_comparison(office: Office) -> None:
    operator, agent = Operator(office), await office.agent()
    await agent.remember("counted")
    await office.indexed()
    await operator.ended((await operator.stub.Reconcile(pb.ReconcileRequest(), metadata=operator.metadata)).job)
    status = await operator.stub.GetIndexStatus(pb.GetIndexStatusRequest(), metadata=operator.metadata, timeout=20)
    (shared,) = [collection for collection in status.collections if not collection.tenant]
    assert shared.rows > 0
    assert shared.loaded
    assert status.last_reconcile.compared >= shared.rows
    assert status.rows_per_second > 0


async def test_a_tenants_rows_are_rebuilt_while_it_recalls(office: Office) -> None:
    operator, agent = Operator(office), await office.agent()
    stored = (await agent.remember("the ferry leaves at noon")).memory
    await office.indexed()
    request = pb.RebuildIndexRequest(tenant=agent.tenant)
    job = (await operator.stub.RebuildIndex(request, metadata=operator.metadata, timeout=20)).job
    again = (await operator.stub.RebuildIndex(request, metadata=operator.metadata, timeout=20)).job
    assert [stored.memory_id] == (await agent.recall("when does the ferry leave?")).ids
    ended = await operator.ended(job)
    assert (pb.INDEX_JOB_STATE_DONE, 1, 1) == (ended.state, ended.done, ended.total)
    assert again.job_id == job.job_id or again.state == pb.INDEX_JOB_STATE_WAITING


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.RebuildIndexRequest(collection="no such"), grpc.StatusCode.INVALID_ARGUMENT, "RebuildIndex"),
        (pb.RebuildIndexRequest(tenant="No Tenant"), grpc.StatusCode.INVALID_ARGUMENT, "RebuildIndex"),
        (pb.ReEmbedRequest(profile="unheard-of"), grpc.StatusCode.INVALID_ARGUMENT, "ReEmbed"),
        (pb.GetIndexJobRequest(job_id="nothing"), grpc.StatusCode.NOT_FOUND, "GetIndexJob"),
        (pb.GetIndexJobRequest(job_id="0" * 32), grpc.StatusCode.NOT_FOUND, "GetIndexJob"),
        (pb.ListIndexJobsRequest(page_token="x"), grpc.StatusCode.INVALID_ARGUMENT, "ListIndexJobs"),
        (pb.ListIndexJobsRequest(page_size=-1), grpc.StatusCode.INVALID_ARGUMENT, "ListIndexJobs"),
        (
            pb.ListPoisonedRowsRequest(page_token="WyJ4IiwieSIsInoiXQ"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "ListPoisonedRows",
        ),
    ],
)
async def test_wrong_requests_are_refused(office: Office, request_: object, code: grpc.StatusCode, field: str) -> None:
    operator = Operator(office)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(operator.stub, field)(request_, metadata=operator.metadata, timeout=20)
    assert code == refused.value.code()


async def test_nothing_is_poisoned_in_a_healthy_stack(office: Office) -> None:
    operator = Operator(office)
    answer = await operator.stub.ListPoisonedRows(pb.ListPoisonedRowsRequest(), metadata=operator.metadata, timeout=20)
    assert [] == list(answer.rows)


async def test_an_agents_key_may_look_but_not_start_anything(office: Office) -> None:
    operator, agent = Operator(office), await office.agent()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await operator.stub.Reconcile(pb.ReconcileRequest(), metadata=agent.metadata, timeout=20)
    assert grpc.StatusCode.PERMISSION_DENIED == refused.value.code()


async def test_an_agents_key_sees_what_concerns_its_own_tenant_only(office: Office) -> None:
    operator, agent, other = Operator(office), await office.agent(), await office.agent()
    await other.remember("theirs")
    await office.indexed()
    request = pb.ReconcileRequest(tenant=other.tenant)
    theirs = (await operator.stub.Reconcile(request, metadata=operator.metadata, timeout=20)).job
    await operator.ended(theirs)
    for call in (
        operator.stub.ListPoisonedRows(pb.ListPoisonedRowsRequest(tenant=other.tenant), metadata=agent.metadata),
        operator.stub.ListIndexJobs(pb.ListIndexJobsRequest(tenant=other.tenant), metadata=agent.metadata),
        operator.stub.GetIndexStatus(pb.GetIndexStatusRequest(tenant=other.tenant), metadata=agent.metadata),
        operator.stub.GetIndexJob(pb.GetIndexJobRequest(job_id=theirs.job_id), metadata=agent.metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
    listed = await operator.stub.ListIndexJobs(pb.ListIndexJobsRequest(), metadata=agent.metadata)
    assert [] == list(listed.jobs)

"""OperatorService on the memory server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Collection as Names
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from memory_server.core.index_jobs import IndexJobs
from memory_server.core.indexing import Indexing
from memory_server.domain.index_tasks import Scope, TaskKind
from memory_server.ports import Clock, Collection, CollectionLostError, IndexQueue, VectorIndex
from memory_server.servicers.index_jobs import (
    STATES,
    poisoned_behind,
    poisoned_to_pb,
    poisoned_token,
    report_to_pb,
    task_behind,
    task_to_pb,
    tasks_token,
)
from rpckit.call import current_call, current_caller
from rpckit.health import Health
from rpckit.interceptors.admission import Drain
from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import timestamp
from soma_contract.convert.operations import (
    ComponentState,
    EmbeddingIdentity,
    ServerIdentity,
    components_to_pb,
    drain_to_pb,
    grace_of,
    server_info_to_pb,
    who_am_i_to_pb,
)
from soma_contract.errors import (
    FeatureDisabledError,
    FieldViolationError,
    JobNotFoundError,
    SomaError,
    TenantForbiddenError,
)
from soma_contract.scopes import OPERATOR
from soma_contract.tenant import admin_tenant, is_tenant_name

COUNT_S = 1.0
"""Patience with the index when its rows are counted."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What the operator's calls look at."""

    server: ServerIdentity
    embedding: EmbeddingIdentity
    health: Health
    drain: Drain
    clock: Clock
    queue: IndexQueue
    index: VectorIndex
    indexing: Indexing | None
    index_jobs: IndexJobs
    profiles: Mapping[str, int]
    """Key to dimension of every embedding profile this server has; the first is its default."""
    stop: Callable[[float | None], None]
    """Asks the server to go down, with another grace than its own if one is given."""
    notice_s: float
    grace_s: float
    essential: Names[str]


class OperatorServicer(rpc.OperatorServiceServicer):
    """What operators see of this server."""

    def __init__(self, operations: Operations) -> None:
        self._on = operations

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        draining = self._on.drain.started.is_set()
        return server_info_to_pb(self._on.server, self._on.embedding, self._on.clock.now(), draining=draining)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        call = current_call()
        return who_am_i_to_pb(current_caller(), call.tenant, call.persona, call.session)

    async def GetComponents(self, request: pb.GetComponentsRequest, context: Any) -> pb.GetComponentsResponse:
        reports = await self._on.health.refresh()
        return components_to_pb(
            ComponentState(
                report.name,
                report.state.value,
                report.latency_s,
                report.since,
                report.last_error,
                report.name in self._on.essential,
            )
            for report in reports
            if not request.names or report.name in request.names
        )

    async def GetIndexStatus(self, request: pb.GetIndexStatusRequest, context: Any) -> pb.GetIndexStatusResponse:
        name = _within_reach(request.tenant)
        tenant = admin_tenant(name, reason="an operator asks") if name else None
        lag = await self._on.queue.lag(tenant)
        wire = pb.GetIndexStatusResponse(
            pending_rows=lag.rows,
            poisoned_rows=lag.poisoned,
            paused=self._on.indexing is None or self._on.indexing.paused,
        )
        wire.oldest_age.FromNanoseconds(int(lag.oldest_s * 1e9))
        wire.rows_per_second = self._on.indexing.rows_per_second if self._on.indexing is not None else 0.0
        for collection in await self._on.queue.collections():
            if collection.tenant_name in ("", name) or not name:
                wire.collections.append(await self._collection(collection))
        last = await self._on.index_jobs.tasks.last_reconcile()
        if last is not None:
            wire.last_reconcile.CopyFrom(report_to_pb(last))
        wire.running_job_id = await self._on.index_jobs.tasks.running()
        return wire

    async def _collection(self, collection: Collection) -> pb.IndexCollection:
        wire = pb.IndexCollection(
            collection=collection.name,
            epoch=collection.epoch,
            embedding=pb.EmbeddingProfile(profile=collection.profile, dimension=collection.dimension),
            tenant=collection.tenant_name,
        )
        try:
            async with asyncio.timeout(COUNT_S):
                wire.rows = await self._on.index.count(collection)
                wire.loaded = True
        except (SomaError, CollectionLostError, TimeoutError):
            # Absent rows say that the index is away.
            return wire
        return wire

    async def ListPoisonedRows(self, request: pb.ListPoisonedRowsRequest, context: Any) -> pb.ListPoisonedRowsResponse:
        checks = Checks()
        limit = checks.page_size("page_size", request.page_size)
        checks.done()
        after = poisoned_behind(request.page_token)
        rows = await self._on.index_jobs.tasks.poisoned(_within_reach(request.tenant), after=after, limit=limit)
        token = poisoned_token(rows[-1]) if len(rows) == limit else ""
        return pb.ListPoisonedRowsResponse(rows=map(poisoned_to_pb, rows), next_page_token=token)

    async def RebuildIndex(self, request: pb.RebuildIndexRequest, context: Any) -> pb.RebuildIndexResponse:
        scope = Scope(
            TaskKind.REBUILD,
            self._tenant(request.tenant),
            request.collection,
            poisoned_only=request.poisoned_only,
        )
        names = {collection.name for collection in await self._on.queue.collections()}
        if request.collection and request.collection not in names:
            raise FieldViolationError.at("collection", "is no active collection; GetIndexStatus lists them")
        return pb.RebuildIndexResponse(job=task_to_pb(await self._on.index_jobs.start(scope)))

    async def ReEmbed(self, request: pb.ReEmbedRequest, context: Any) -> pb.ReEmbedResponse:
        profile = request.profile or next(iter(self._on.profiles))
        if profile not in self._on.profiles:
            known = ", ".join(self._on.profiles)
            raise FieldViolationError.at("profile", f"is not one this server has; it has {known}")
        scope = Scope(
            TaskKind.RE_EMBED, self._tenant(request.tenant), profile=profile, dimension=self._on.profiles[profile]
        )
        return pb.ReEmbedResponse(job=task_to_pb(await self._on.index_jobs.start(scope)))

    async def Reconcile(self, request: pb.ReconcileRequest, context: Any) -> pb.ReconcileResponse:
        scope = Scope(TaskKind.RECONCILE, self._tenant(request.tenant), repair=request.repair)
        return pb.ReconcileResponse(job=task_to_pb(await self._on.index_jobs.start(scope)))

    async def GetIndexJob(self, request: pb.GetIndexJobRequest, context: Any) -> pb.GetIndexJobResponse:
        task = await self._on.index_jobs.get(request.job_id)
        if _within_reach(task.scope.tenant_name) != task.scope.tenant_name:
            raise JobNotFoundError(job_id=request.job_id)
        return pb.GetIndexJobResponse(job=task_to_pb(task))

    async def ListIndexJobs(self, request: pb.ListIndexJobsRequest, context: Any) -> pb.ListIndexJobsResponse:
        checks = Checks()
        limit = checks.page_size("page_size", request.page_size)
        if request.state and request.state not in STATES:
            checks.fail("state", "is not a state")
        checks.done()
        tasks = await self._on.index_jobs.tasks.page(
            _within_reach(request.tenant), STATES.get(request.state), after=task_behind(request.page_token), limit=limit
        )
        token = tasks_token(tasks[-1]) if len(tasks) == limit else ""
        return pb.ListIndexJobsResponse(jobs=map(task_to_pb, tasks), next_page_token=token)

    def _tenant(self, name: str) -> str:
        if name and not is_tenant_name(name):
            raise FieldViolationError.at("tenant", "is no tenant's name")
        return name

    async def PauseIndexer(self, request: pb.PauseIndexerRequest, context: Any) -> pb.PauseIndexerResponse:
        if self._on.indexing is None:
            raise FeatureDisabledError(feature="indexer")
        was_paused, seconds = self._on.indexing.paused, request.max_pause.ToNanoseconds() / 1e9
        resume_at = self._on.indexing.pause(request.paused, seconds or None)
        return pb.PauseIndexerResponse(
            was_paused=was_paused,
            resume_time=timestamp(self._on.clock.now() + timedelta(seconds=resume_at)) if resume_at else None,
        )

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:
        grace_s = grace_of(request)
        self._on.stop(grace_s)
        longest_s = self._on.notice_s + (self._on.grace_s if grace_s is None else grace_s)
        drain = self._on.drain
        return drain_to_pb(drain.running, drain.streams, self._on.clock.now(), longest_s)


def _within_reach(name: str) -> str:
    """The tenant asked about, "" for all; a credential of tenants sees only them, its only one without being asked.

    Raises TenantForbiddenError.
    """
    caller = current_caller()
    if caller.may_act_as or caller.has_scope(OPERATOR):
        return name
    if not name and len(caller.tenants) == 1:
        return next(iter(caller.tenants))
    if name not in caller.tenants:
        raise TenantForbiddenError(tenant=name)
    return name

"""Looking after the one server process that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from soma.admin.v1 import operator_service_pb2 as pb
from soma.admin.v1 import operator_service_pb2_grpc as rpc
from soma_client.calling import Calls


class OperatorCalls:
    """OperatorService, in the contract's own messages; what a server has not raises FeatureDisabledError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._operator = rpc.OperatorServiceStub(calls.channel)

    async def server_info(self) -> pb.GetServerInfoResponse:
        """Version, limits and services of the server."""
        return await self._calls.unary(self._operator.GetServerInfo, pb.GetServerInfoRequest())

    async def who_am_i(self) -> pb.WhoAmIResponse:
        """Whom the server takes this client for."""
        return await self._calls.unary(self._operator.WhoAmI, pb.WhoAmIRequest())

    async def components(self, names: Iterable[str] = ()) -> pb.GetComponentsResponse:
        """How the stores and servers behind it are, within 2 s."""
        return await self._calls.unary(self._operator.GetComponents, pb.GetComponentsRequest(names=names))

    async def index_status(self, tenant: str = "") -> pb.GetIndexStatusResponse:
        """How far the index is behind the truth."""
        return await self._calls.unary(self._operator.GetIndexStatus, pb.GetIndexStatusRequest(tenant=tenant))

    async def pause_indexer(self, paused: bool = True, max_pause_s: float | None = None) -> pb.PauseIndexerResponse:
        """Let the indexer rest, or go on."""
        request = pb.PauseIndexerRequest(paused=paused)
        if max_pause_s is not None:
            request.max_pause.FromNanoseconds(round(max_pause_s * 1e9))
        return await self._calls.unary(self._operator.PauseIndexer, request)

    async def poisoned_rows(self, tenant: str = "") -> AsyncIterator[pb.PoisonedRow]:
        """Iterate over memories that the index or the embedder refuses, oldest first."""
        request = pb.ListPoisonedRowsRequest(tenant=tenant)
        while True:
            page = await self._calls.unary(self._operator.ListPoisonedRows, request)
            for row in page.rows:
                yield row
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def rebuild_index(
        self, tenant: str = "", collection: str = "", *, poisoned_only: bool = False
    ) -> pb.IndexJob:
        """Have a collection, a tenant's rows or what is poisoned made anew; recall goes on meanwhile."""
        request = pb.RebuildIndexRequest(tenant=tenant, collection=collection, poisoned_only=poisoned_only)
        return (await self._calls.unary(self._operator.RebuildIndex, request)).job

    async def re_embed(self, tenant: str = "", profile: str = "") -> pb.IndexJob:
        """Have memories embedded by another model; until that is done the old one answers."""
        request = pb.ReEmbedRequest(tenant=tenant, profile=profile)
        return (await self._calls.unary(self._operator.ReEmbed, request)).job

    async def reconcile(self, tenant: str = "", *, repair: bool = True) -> pb.IndexJob:
        """Have the index compared with the truth, and repaired unless only differences are asked for."""
        request = pb.ReconcileRequest(tenant=tenant, repair=repair)
        return (await self._calls.unary(self._operator.Reconcile, request)).job

    async def index_job(self, job_id: str) -> pb.IndexJob:
        """Read a job of the index."""
        return (await self._calls.unary(self._operator.GetIndexJob, pb.GetIndexJobRequest(job_id=job_id))).job

    async def index_jobs(self, tenant: str = "") -> AsyncIterator[pb.IndexJob]:
        """Iterate over the jobs of the index, newest first."""
        request = pb.ListIndexJobsRequest(tenant=tenant)
        while True:
            page = await self._calls.unary(self._operator.ListIndexJobs, request)
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def outbox(self, tenant: str = "") -> pb.GetOutboxResponse:
        """State of the brain's outbox."""
        return await self._calls.unary(self._operator.GetOutbox, pb.GetOutboxRequest(tenant=tenant))

    async def breakers(self, *, not_closed: bool = False) -> AsyncIterator[pb.Breaker]:
        """Iterate over the circuit breakers."""
        request = pb.ListBreakersRequest(not_closed=not_closed)
        while True:
            page = await self._calls.unary(self._operator.ListBreakers, request)
            for breaker in page.breakers:
                yield breaker
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def reset_breaker(self, dependency: str, tenant: str = "", *, all_tenants: bool = False) -> int:
        """Close a breaker now; returns how many were not closed."""
        request = pb.ResetBreakerRequest(dependency=dependency, tenant=tenant, all_tenants=all_tenants)
        return (await self._calls.unary(self._operator.ResetBreaker, request)).closed

    async def dead_letters(self, tenant: str = "") -> AsyncIterator[pb.DeadLetter]:
        """Iterate over acknowledged writes that the memory server refused for good, oldest first."""
        request = pb.ListDeadLettersRequest(tenant=tenant)
        while True:
            page = await self._calls.unary(self._operator.ListDeadLetters, request)
            for letter in page.dead_letters:
                yield letter
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def replay_dead_letters(
        self, entry_ids: Iterable[str] = (), tenant: str = ""
    ) -> pb.ReplayDeadLettersResponse:
        """Put dead letters back into the outbox: these, or all of a tenant."""
        request = pb.ReplayDeadLettersRequest(entry_ids=entry_ids, tenant=tenant)
        return await self._calls.unary(self._operator.ReplayDeadLetters, request)

    async def discard_dead_letters(
        self, cause: str, entry_ids: Iterable[str] = (), tenant: str = ""
    ) -> pb.DiscardDeadLettersResponse:
        """Delete dead letters for good, with the cause for the audit log: these, or all of a tenant."""
        request = pb.DiscardDeadLettersRequest(entry_ids=entry_ids, tenant=tenant, cause=cause)
        return await self._calls.unary(self._operator.DiscardDeadLetters, request)

    async def drain(self, grace_s: float | None = None) -> pb.DrainResponse:
        """Begin to shut the server down; there is no way back."""
        request = pb.DrainRequest()
        if grace_s is not None:
            request.grace.FromNanoseconds(round(grace_s * 1e9))
        return await self._calls.unary(self._operator.Drain, request)

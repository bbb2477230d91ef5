"""The composition root: settings to a running memory server, every resource on one exit stack."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from memory_server.core.candidates import CandidateSearch
from memory_server.core.deleting import Deleting
from memory_server.core.embedding import Embedding
from memory_server.core.exporting import Exporting
from memory_server.core.graph_leg import GraphLeg
from memory_server.core.identity import Identity
from memory_server.core.importing import Importing
from memory_server.core.index_jobs import IndexJobs
from memory_server.core.indexing import Indexing
from memory_server.core.linking import Linking
from memory_server.core.questions import Questions
from memory_server.core.reading import Reading
from memory_server.core.rebuilding import Copying, Pace, Rebuilding
from memory_server.core.recalling import Recalling
from memory_server.core.reconciling import Reconciling
from memory_server.core.reembedding import ReEmbedding
from memory_server.core.reinforcing import Reinforcing
from memory_server.core.reranking import Reranker
from memory_server.core.sessions import Sessions
from memory_server.core.tenant_policies import Policies, load_scorers
from memory_server.core.traversing import Traversing
from memory_server.core.watching import ChangeHint, Watching
from memory_server.core.writing import Writing
from memory_server.domain.index_tasks import TaskKind
from memory_server.ops import leg_metrics, ops_port
from memory_server.ports import Cache, Collection
from memory_server.servicers.batch import BatchServicer
from memory_server.servicers.graph import GraphServicer
from memory_server.servicers.memory import MemoryServicer
from memory_server.servicers.operator import Operations, OperatorServicer
from memory_server.servicers.sessions import SessionServicer
from memory_server.servicers.tenants import TenantServicer
from memory_server.servicers.watch import WatchServicer
from memory_server.settings import MemorySettings
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.cache import NullCache
from memory_server.stores.jwt_tokens import JwtTokens
from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from memory_server.stores.postgres.actor_names import PostgresActorNames
from memory_server.stores.postgres.changes import PostgresChanges
from memory_server.stores.postgres.errors import translated
from memory_server.stores.postgres.exports import PostgresExports
from memory_server.stores.postgres.graph_store import open_graph_store
from memory_server.stores.postgres.housekeeping import PostgresHousekeeping
from memory_server.stores.postgres.imports import PostgresImports
from memory_server.stores.postgres.index_builds import PostgresIndexBuilds
from memory_server.stores.postgres.index_jobs import PostgresIndexTasks
from memory_server.stores.postgres.index_queue import PostgresIndexQueue
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import Pools, PoolSizes, open_pools
from memory_server.stores.postgres.profiles import check_profile
from memory_server.stores.postgres.recall_source import PostgresRecallSource
from memory_server.stores.postgres.reconcile import PostgresIndexTruth
from memory_server.stores.postgres.registry import PostgresRegistry
from memory_server.stores.postgres.sessions import PostgresSessions
from memory_server.stores.redis.cache import RedisCache
from memory_server.stores.rerank.http import HttpReranker
from memory_server.stores.rerank.onnx import OnnxReranker
from rpckit.channelz import channelz_port
from rpckit.health import Health
from rpckit.interceptors.admission import AdmissionLimits, Drain
from rpckit.interceptors.chain import call_chain
from rpckit.lifecycle import Served, Shutdown, StopRequest, serve
from rpckit.server import ServerOptions, ServerTls, add_reflection, bind, new_server
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.exporting import exported_spans
from rpckit.telemetry.metrics import PrometheusMetrics
from rpckit.unserved import served
from soma.admin.v1 import operator_service_pb2_grpc, tenant_service_pb2_grpc
from soma.batch.v1 import batch_service_pb2_grpc
from soma.graph.v1 import graph_service_pb2_grpc
from soma.memory.v1 import memory_service_pb2_grpc, session_service_pb2_grpc, watch_service_pb2_grpc
from soma_contract.convert.operations import EmbeddingIdentity, ServerIdentity
from soma_contract.embedders.base import Embedder
from soma_contract.embedders.factory import build_embedder
from soma_contract.ids import new_memory_id
from soma_contract.scopes import SCOPES, TENANTLESS

_log = logging.getLogger("soma.memory")

# What each service cannot do without; a service that is not listed is not served here.
SERVICES = {
    "soma.memory.v1.MemoryService": ("postgres",),
    "soma.graph.v1.GraphService": ("postgres",),
    "soma.memory.v1.SessionService": ("postgres",),
    "soma.batch.v1.BatchService": ("postgres",),
    "soma.memory.v1.WatchService": ("postgres",),
    "soma.admin.v1.TenantService": ("postgres",),
    "soma.admin.v1.OperatorService": (),
}
ESSENTIAL = frozenset({"postgres"})


@dataclass(frozen=True, slots=True)
class _Probe:
    """A health probe made of a name and a question."""

    name: str
    check: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Stores:
    """The opened stores and the embedder."""

    pools: Pools
    index: MilvusIndex
    cache: Cache
    embedder: Embedder
    previous: Embedder | None

    @property
    def embedders(self) -> tuple[Embedder, ...]:
        """Every embedder, the one for new tenants first."""
        return (self.embedder,) if self.previous is None else (self.embedder, self.previous)


@dataclass(frozen=True, slots=True)
class _Cases:
    """The use cases."""

    identity: Identity
    policies: Policies
    writing: Writing
    reading: Reading
    recalling: Recalling
    deleting: Deleting
    linking: Linking
    traversing: Traversing
    reinforcing: Reinforcing
    indexing: Indexing
    importing: Importing
    exporting: Exporting
    watching: Watching
    index_jobs: IndexJobs


async def run(settings: MemorySettings, on_port: Callable[[int], None] | None = None, *, workers: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; ``on_port`` is told the port when calls are taken.

    As one of several ``workers`` it shares its port.
    """
    stop = StopRequest()

    async def build(stack: AsyncExitStack) -> Served:
        return await _build(settings, stack, stop, on_port, workers)

    await serve(build, Shutdown(notice_s=settings.notice_s, grace_s=settings.drain_s), stop=stop, signals=True)


async def _build(
    settings: MemorySettings,
    stack: AsyncExitStack,
    stop: StopRequest,
    on_port: Callable[[int], None] | None,
    workers: bool,
) -> Served:
    clock = SystemClock()
    spans = await stack.enter_async_context(
        exported_spans("soma-memory-server", version("soma-memory"), settings.otel_endpoint)
    )
    stores = await _open(settings, stack)
    cases, queue = await _wire(settings, stores, clock, stack)
    drain = Drain()
    health = await stack.enter_async_context(_health(stores))
    metrics = PrometheusMetrics()
    cases.recalling.on_summary = leg_metrics(metrics)
    chain = call_chain(
        cases.identity,
        drain=drain,
        telemetry=CallTelemetry(metrics, spans=spans),
        limits=AdmissionLimits(calls=settings.memory_max_calls, calls_per_tenant=settings.memory_max_calls_per_tenant),
        scopes=SCOPES,
        tenantless=TENANTLESS,
        tenants=cases.identity,
    )
    server = new_server(chain, ServerOptions(connection_age_s=settings.connection_age_s or None, workers=workers))
    profile = stores.embedder.profile
    operations = Operations(
        server=ServerIdentity(
            "memory", version("soma-memory"), f"{socket.gethostname()}/{new_memory_id()}", clock.now(), tuple(SERVICES)
        ),
        embedding=EmbeddingIdentity(profile.key, profile.name, profile.dimension),
        health=health,
        drain=drain,
        clock=clock,
        queue=queue,
        index=stores.index,
        indexing=cases.indexing if settings.indexer else None,
        index_jobs=cases.index_jobs,
        profiles={one.profile.key: one.profile.dimension for one in stores.embedders},
        stop=stop.request,
        essential=ESSENTIAL,
    )
    memory = MemoryServicer(cases.writing, cases.reading, cases.recalling, cases.deleting, drain)
    memory_service_pb2_grpc.add_MemoryServiceServicer_to_server(memory, server)
    graph = GraphServicer(cases.linking, cases.traversing, cases.reinforcing)
    graph_service_pb2_grpc.add_GraphServiceServicer_to_server(graph, server)
    tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(
        served(TenantServicer)(cases.identity, cases.policies), server
    )
    operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(served(OperatorServicer)(operations), server)
    batch = served(BatchServicer)(cases.writing, cases.recalling, cases.importing, cases.exporting, drain)
    batch_service_pb2_grpc.add_BatchServiceServicer_to_server(batch, server)
    watch_service_pb2_grpc.add_WatchServiceServicer_to_server(WatchServicer(cases.watching, drain), server)
    sessions = SessionServicer(Sessions(PostgresSessions(stores.pools)))
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
    health.add_to(server)
    if settings.memory_reflection:
        add_reflection(server, SERVICES)
    await stack.enter_async_context(ops_port(settings.memory_ops_address, metrics, health, stores.pools, queue))
    await stack.enter_async_context(channelz_port(settings.memory_channelz_address))
    port = bind(server, settings.memory_address, _tls(settings))
    await health.wait_ready()

    def started() -> None:
        _log.info("memory server takes calls", extra={"fields": {"port": port, "embedder": profile.key}})
        if on_port is not None:
            on_port(port)

    return Served(server, drain, health, on_started=started)


async def _open(settings: MemorySettings, stack: AsyncExitStack) -> _Stores:
    """Migrate if an owner's address is given, then connect to every store; what is only said is checked first."""
    embedder = build_embedder(
        settings.embedder,
        model=settings.embedder_model,
        base_url=settings.embedder_base_url,
        api_key=settings.embedder_api_key.get_secret_value(),
        dimensions=settings.embedder_dimensions,
        threads=settings.embedder_threads,
        cache_dir=settings.cache_dir,
        sentences=settings.embedder_sentences,
    )
    previous = None
    if settings.previous_embedder:
        previous = build_embedder(
            settings.previous_embedder,
            model=settings.previous_embedder_model,
            base_url=settings.previous_embedder_base_url,
            api_key=settings.previous_embedder_api_key.get_secret_value(),
            dimensions=settings.previous_embedder_dimensions,
            threads=settings.embedder_threads,
            cache_dir=settings.cache_dir,
        )
    try:
        address = MilvusAddress.parse(settings.milvus_address, token=settings.milvus_token.get_secret_value())
    except ValueError as error:
        raise ValueError(f"SOMA_MILVUS_URI: {error}") from None
    if settings.postgres_admin_url is not None:
        with translated("migrate"):
            await migrate(settings.postgres_admin_url.get_secret_value())
    sizes = PoolSizes(settings.pool_interactive, settings.pool_indexing, settings.pool_bulk)
    pools = await stack.enter_async_context(open_pools(settings.postgres_url.get_secret_value(), sizes))
    await stack.enter_async_context(embedder)
    if previous is not None:
        await stack.enter_async_context(previous)
    await check_profile(pools, embedder.profile, previous.profile if previous is not None else None)
    index = await stack.enter_async_context(MilvusIndex(address))
    redis_url = settings.redis_url.get_secret_value()
    cache: Cache = await stack.enter_async_context(RedisCache(redis_url)) if redis_url else NullCache()
    return _Stores(pools, index, cache, embedder, previous)


async def _wire(
    settings: MemorySettings, stores: _Stores, clock: SystemClock, stack: AsyncExitStack
) -> tuple[_Cases, PostgresIndexQueue]:
    """Make the use cases and start the indexer."""
    pools, profile = stores.pools, stores.embedder.profile
    analyse = analysis()
    journal = await stack.enter_async_context(open_journal(pools, analyse, versions_kept=settings.versions_kept))
    graph = await stack.enter_async_context(open_graph_store(pools))
    linking = Linking(graph, clock)
    queue = PostgresIndexQueue(pools, analyse, clock, settings.milvus_collection)
    source = PostgresRecallSource(pools)
    changed = ChangeHint()
    registry = PostgresRegistry(pools)
    identity = Identity(registry, clock, await _tokens(settings))
    policies = Policies(registry, clock, load_scorers(settings.scorers))
    if settings.bootstrap_key_file is not None:
        await identity.bootstrap(await asyncio.to_thread(settings.bootstrap_key_file.read_text))
    actors = PostgresActorNames(pools, clock)
    models = {one.profile.name for one in stores.embedders}
    embedding, *others = [
        Embedding(one, stores.cache, actors, other_models=frozenset(models - {one.profile.name}))
        for one in stores.embedders
    ]
    indexing = Indexing(
        queue,
        stores.index,
        embedding,
        batch=settings.index_batch,
        lease_s=settings.index_lease_s,
        poll_s=settings.index_poll_s,
        others=others,
    )

    def written() -> None:
        indexing.hint()
        changed.give()

    async def on_lost(collection: Collection) -> None:
        recalling.forget_collections()
        await indexing.restored(collection)

    reranker = await _reranker(settings, stack)

    def recalling_with(embedding: Embedding, others: Sequence[Recalling] = ()) -> Recalling:
        return Recalling(
            journal,
            source,
            queue,
            CandidateSearch(journal, source, queue, stores.index, embedding, on_lost),
            Questions(embedding, actors, journal, clock),
            embedding,
            clock,
            policies=policies,
            graph=GraphLeg(graph, clock),
            reranker=reranker,
            others=others,
        )

    recalling = recalling_with(embedding, [recalling_with(other) for other in others])
    index_jobs = _index_jobs(settings, stores, queue, [embedding, *others], indexing, recalling)
    if settings.indexer:
        housekeeping = PostgresHousekeeping(pools, journal)
        await stack.enter_async_context(_running(indexing.run(), index_jobs.run(), housekeeping.run()))
    cases = _Cases(
        identity=identity,
        policies=policies,
        writing=Writing(journal, profile.dimension, profile.name, written, linking.refer),
        reading=Reading(journal, stores.cache),
        recalling=recalling,
        deleting=Deleting(journal),
        linking=linking,
        traversing=Traversing(graph, journal, clock, settings.graph_budget_s),
        reinforcing=Reinforcing(graph, journal),
        indexing=indexing,
        importing=Importing(
            PostgresImports(pools, analyse, profile.key, settings.versions_kept),
            profile.dimension,
            profile.name,
            profile.key,
            written,
        ),
        watching=Watching(PostgresChanges(pools), clock, changed),
        exporting=Exporting(PostgresExports(pools, profile.key, max(1, settings.pool_bulk - 1))),
        index_jobs=index_jobs,
    )
    return cases, queue


def _index_jobs(
    settings: MemorySettings,
    stores: _Stores,
    queue: PostgresIndexQueue,
    embeddings: Sequence[Embedding],
    indexing: Indexing,
    recalling: Recalling,
) -> IndexJobs:
    """Make what works on whole collections."""

    def on_switched() -> None:
        queue.forget_collections()
        recalling.forget_collections()

    by_profile = {embedding.profile.key: embedding for embedding in embeddings}
    truth, tasks = PostgresIndexTruth(stores.pools), PostgresIndexTasks(stores.pools)
    builds = PostgresIndexBuilds(stores.pools, queue.analyse, settings.milvus_collection)
    pace = Pace(visible_after_s=settings.index_visible_s, retire_after_s=settings.index_retire_s)
    copying = Copying(stores.index, queue, builds, pace)
    reconciling = Reconciling(stores.index, queue, truth, indexing.hint)
    rebuilding = Rebuilding(copying, truth, by_profile, tasks.retry_poisoned, on_switched, indexing.hint)
    reembedding = ReEmbedding(copying, rebuilding, reconciling, by_profile, on_switched, indexing.hint)
    works = {
        TaskKind.RECONCILE: reconciling.run,
        TaskKind.REBUILD: rebuilding.run,
        TaskKind.RE_EMBED: reembedding.run,
    }
    return IndexJobs(tasks, works, lease_s=settings.index_lease_s, reconcile_every_s=settings.reconcile_every_s)


async def _tokens(settings: MemorySettings) -> JwtTokens | None:
    """The identity provider that the settings name, if any."""
    if settings.jwt_keys is None:
        return None
    return await asyncio.to_thread(
        JwtTokens.load, settings.jwt_keys, audience=settings.jwt_audience, issuer=settings.jwt_issuer
    )


async def _reranker(settings: MemorySettings, stack: AsyncExitStack) -> Reranker | None:
    """The re-ranking model that the settings name, if any."""
    if settings.rerank_onnx is not None:
        return await stack.enter_async_context(OnnxReranker(settings.rerank_onnx))
    if settings.rerank_url:
        endpoint = HttpReranker(
            settings.rerank_url, model=settings.rerank_model, api_key=settings.rerank_api_key.get_secret_value()
        )
        return await stack.enter_async_context(endpoint)
    return None


@asynccontextmanager
async def _running(*workers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the workers until left; a defect in one ends the server instead of staying silent."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker) for worker in workers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _health(stores: _Stores) -> Health:
    probes = [
        _Probe("postgres", stores.pools.probe),
        _Probe("milvus", stores.index.probe),
        _Probe("redis", stores.cache.probe),
    ]
    return Health(probes, services=SERVICES)


def _tls(settings: MemorySettings) -> ServerTls | None:
    if settings.memory_tls_cert is None or settings.memory_tls_key is None:
        return None
    return ServerTls(settings.memory_tls_cert, settings.memory_tls_key)

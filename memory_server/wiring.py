"""Stores to use cases, and the workers that run beside the calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from memory_server.core.tenant_policies import Policies, load_scorers
from memory_server.core.traversing import Traversing
from memory_server.core.watching import ChangeHint, Watching
from memory_server.core.writing import Writing
from memory_server.domain.index_tasks import TaskKind
from memory_server.opening import Stores
from memory_server.ports import Collection
from memory_server.settings import MemorySettings
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.postgres.actor_names import PostgresActorNames
from memory_server.stores.postgres.changes import PostgresChanges
from memory_server.stores.postgres.exports import PostgresExports
from memory_server.stores.postgres.graph_store import open_graph_store
from memory_server.stores.postgres.housekeeping import PostgresHousekeeping
from memory_server.stores.postgres.imports import PostgresImports
from memory_server.stores.postgres.index_builds import PostgresIndexBuilds
from memory_server.stores.postgres.index_jobs import PostgresIndexTasks
from memory_server.stores.postgres.index_queue import PostgresIndexQueue
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.recall_source import PostgresRecallSource
from memory_server.stores.postgres.reconcile import PostgresIndexTruth
from memory_server.stores.postgres.registry import PostgresRegistry

if TYPE_CHECKING:
    from memory_server.stores.jwt_tokens import JwtTokens


@dataclass(frozen=True, slots=True)
class Cases:
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


async def wire(
    settings: MemorySettings, stores: Stores, clock: SystemClock, stack: AsyncExitStack
) -> tuple[Cases, PostgresIndexQueue]:
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
    cases = Cases(
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
    stores: Stores,
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
    # What few servers need is imported where it is: a start takes two seconds, most of them for imports.
    from memory_server.stores.jwt_tokens import JwtTokens

    return await asyncio.to_thread(
        JwtTokens.load, settings.jwt_keys, audience=settings.jwt_audience, issuer=settings.jwt_issuer
    )


async def _reranker(settings: MemorySettings, stack: AsyncExitStack) -> Reranker | None:
    """The re-ranking model that the settings name, if any."""
    if settings.rerank_onnx is not None:
        from memory_server.stores.rerank.onnx import OnnxReranker

        return await stack.enter_async_context(OnnxReranker(settings.rerank_onnx))
    if settings.rerank_url:
        from memory_server.stores.rerank.http import HttpReranker

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

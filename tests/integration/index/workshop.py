"""The index pipeline over real stores, driven step by step by a test instead of by a server."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import numpy as np

from memory_server.core.candidates import CandidateSearch
from memory_server.core.embedding import Embedding
from memory_server.core.index_jobs import IndexJobs
from memory_server.core.indexing import Indexing
from memory_server.core.questions import Questions
from memory_server.core.rebuilding import Copying, Pace, Rebuilding
from memory_server.core.recalling import Recalling
from memory_server.core.reconciling import Reconciling
from memory_server.core.reembedding import ReEmbedding
from memory_server.domain.index_tasks import IndexTask, Scope, TaskKind, TaskState
from memory_server.ports import Collection, IndexRow, Journal
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.cache import NullCache
from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from memory_server.stores.postgres.actor_names import PostgresActorNames
from memory_server.stores.postgres.index_builds import PostgresIndexBuilds
from memory_server.stores.postgres.index_jobs import PostgresIndexTasks
from memory_server.stores.postgres.index_queue import PostgresIndexQueue
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import Pools, open_pools
from memory_server.stores.postgres.recall_source import PostgresRecallSource
from memory_server.stores.postgres.reconcile import PostgresIndexTruth
from memory_server.stores.postgres.registry import PostgresRegistry
from soma_contract.completing import completed
from soma_contract.embedders.hashing import HashingEmbedder
from soma_contract.errors import EmbeddingProfileMismatchError, SomaError
from soma_contract.memory import Memory, Remember
from soma_contract.recall import Recalled, RecallQuery
from soma_contract.tenant import Tenant, admin_tenant

DIMENSION = 32
OTHER_DIMENSION = 48
_numbers = itertools.count(1)


@dataclasses.dataclass(slots=True)
class Workshop:
    """Journal, index and what keeps the two together, on a database and a collection prefix of their own."""

    pools: Pools
    journal: Journal
    queue: PostgresIndexQueue
    index: MilvusIndex
    embedding: Embedding
    other: Embedding
    """Of another dimension; tenants can be moved to it."""
    recalling: Recalling
    indexing: Indexing
    jobs: IndexJobs

    async def tenant(self, name: str, *, dedicated: bool = False) -> Tenant:
        """A tenant of this name."""
        await PostgresRegistry(self.pools).create_tenant(name, "", dedicated=dedicated)
        return admin_tenant(name, reason="tests")

    async def remember(self, tenant: Tenant, texts: Sequence[str]) -> list[Memory]:
        """Store memories, keyed by their texts."""
        commands = [completed(Remember(Memory(text=text, key=text))) for text in texts]
        written = []
        for start in range(0, len(commands), 500):
            written += await self.journal.write(tenant, commands[start : start + 500])
        found = []
        for one in written:
            assert not isinstance(one, Exception), one
            assert one.memory is not None
            found.append(one.memory)
        return found

    async def indexed(self, *, long_ago: bool = False) -> None:
        """Work off all jobs; ``long_ago`` makes it longer ago than the overlay takes rows for just indexed."""
        while (await self.queue.lag()).rows:
            await self.indexing.step()
        if long_ago:
            async with self.pools.bulk.worker() as connection:
                await connection.execute("UPDATE index_jobs SET moved_at = moved_at - interval '1 hour'")

    async def collection(self, tenant: Tenant) -> Collection:
        """The collection of a tenant, as the truth has it now."""
        self.queue.forget_collections()
        for embedding in (self.embedding, self.other):
            profile = embedding.profile
            with suppress(EmbeddingProfileMismatchError):
                return await self.queue.active_collection(tenant, profile.key, profile.dimension)
        raise AssertionError(f"{tenant} has another profile")

    async def held(self, collection: Collection) -> dict[tuple[str, str], int]:
        """What the index holds."""
        rows: list[tuple[str, str, int]] = []
        after = ""
        while page := await self.index.versions(collection, after_key=after, limit=10_000):
            rows += page
            after = f"{page[-1][0]}|{page[-1][1]}"
        return {(tenant, memory_id): version for tenant, memory_id, version in rows}

    async def plant(self, collection: Collection, tenant: Tenant, memories: Sequence[Memory], version: int) -> None:
        """Put rows into the index behind everybody's back."""
        vector = np.zeros(DIMENSION, np.float32)
        vector[0] = 1.0
        rows = [
            IndexRow(tenant, dataclasses.replace(memory, version=version), version, vector, memory.text)
            for memory in memories
        ]
        await self.index.upsert(collection, rows)

    async def done(self, scope: Scope) -> IndexTask:
        """Have a task done to its end while the indexer works, and return it."""
        task = await self.jobs.start(scope)
        async with running(self.indexing.run):
            while (task := await self.jobs.get(task.task_id)).state in (TaskState.WAITING, TaskState.RUNNING):
                # A machine with much to do lets a statement run out of time: a server goes on where it was, and so
                # does this.
                with suppress(SomaError):
                    await self.jobs.step()
        return task

    async def recalled(self, tenant: Tenant, text: str, limit: int = 1) -> Recalled:
        """Recall by text."""
        return await self.recalling.recall(tenant, RecallQuery(text=text, limit=limit), namespace="default")

    async def reconciled(self, *, repair: bool = True, tenant: str = "") -> IndexTask:
        """Compare, and repair if asked to."""
        return await self.done(Scope(TaskKind.RECONCILE, tenant, repair=repair))


@asynccontextmanager
async def running(work: Callable[[], Coroutine[object, object, object]]) -> AsyncIterator[None]:
    """Let something run until left."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def open_workshop(url: str, admin_url: str, milvus_uri: str) -> AsyncIterator[Workshop]:
    """A workshop on an empty database."""
    await migrate(admin_url)
    async with AsyncExitStack() as stack:
        pools = await stack.enter_async_context(open_pools(url))
        analyse = analysis()
        journal = await stack.enter_async_context(open_journal(pools, analyse))
        clock = SystemClock()
        prefix = f"workshop_{next(_numbers)}"
        queue = PostgresIndexQueue(pools, analyse, clock, prefix)
        index = await stack.enter_async_context(MilvusIndex(MilvusAddress.parse(milvus_uri), strong=True))
        actors = PostgresActorNames(pools, clock)
        embedding, other = [
            Embedding(await stack.enter_async_context(HashingEmbedder(dimension)), NullCache(), actors)
            for dimension in (DIMENSION, OTHER_DIMENSION)
        ]
        indexing = Indexing(queue, index, embedding, poll_s=0.02, others=[other])

        async def on_lost(collection: Collection) -> None:
            recalling.forget_collections()
            await indexing.restored(collection)

        source = PostgresRecallSource(pools)
        by_other, recalling = [
            Recalling(
                journal,
                source,
                queue,
                CandidateSearch(journal, source, queue, index, one, on_lost),
                Questions(one, actors, journal, clock),
                one,
                clock,
            )
            for one in (other, embedding)
        ]
        recalling.others = [by_other]
        truth, builds, tasks = (
            PostgresIndexTruth(pools),
            PostgresIndexBuilds(pools, analyse, prefix),
            PostgresIndexTasks(pools),
        )
        pace = Pace(rest=0.1, visible_after_s=0.1, retire_after_s=0.5)
        copying = Copying(index, queue, builds, pace)
        embeddings = {one.profile.key: one for one in (embedding, other)}
        reconciling = Reconciling(index, queue, truth, indexing.hint, rest=0.0, page_rows=700)

        def on_switched() -> None:
            queue.forget_collections()
            recalling.forget_collections()

        rebuilding = Rebuilding(copying, truth, embeddings, tasks.retry_poisoned, on_switched, indexing.hint)
        reembedding = ReEmbedding(copying, rebuilding, reconciling, embeddings, on_switched, indexing.hint)
        works = {
            TaskKind.RECONCILE: reconciling.run,
            TaskKind.REBUILD: rebuilding.run,
            TaskKind.RE_EMBED: reembedding.run,
        }
        jobs = IndexJobs(tasks, works, reconcile_every_s=0.0, lease_s=20.0)
        yield Workshop(pools, journal, queue, index, embedding, other, recalling, indexing, jobs)

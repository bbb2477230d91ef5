"""The verb *index*: brings the vector index to the state of the truth, after the acknowledgement."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from memory_server.core.embedding import Embedding
from memory_server.ports import (
    Collection,
    CollectionLostError,
    IndexJob,
    IndexQueue,
    IndexRow,
    RowsRefusedError,
    StoredVectors,
    VectorIndex,
)
from rpckit.failpoints import failpoint
from soma_contract.errors import Code, EmbeddingProfileMismatchError, SomaError
from soma_contract.tenant import Tenant

_log = logging.getLogger("soma.indexing")

RATE_OVER_S = 60.0
MAX_PAUSE_S = 3_600.0
"""An indexer paused and forgotten resumes after this long."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Claimed jobs, and those of them that are ready to be written, by collection."""

    jobs: Sequence[IndexJob]
    ready: Sequence[tuple[Collection, _Ready]]


@dataclass(frozen=True, slots=True)
class _Ready:
    """Jobs with their vectors, and of these the ones that were just made and are kept first."""

    jobs: Sequence[IndexJob]
    made: Sequence[tuple[IndexJob, StoredVectors]] = ()


@dataclass(slots=True)
class Indexing:
    """Claims index jobs, embeds what has no vector yet, writes the index, settles the jobs."""

    queue: IndexQueue
    index: VectorIndex
    embedding: Embedding
    batch: int = 128
    lease_s: float = 60.0
    poll_s: float = 0.2
    others: Sequence[Embedding] = ()
    """Embedders of tenants that are on another profile, until they are moved."""
    _hint: asyncio.Event = field(default_factory=asyncio.Event)
    _paused_until: float = 0.0
    _settled: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def rows_per_second(self) -> float:
        """Memories brought to the index a second, over the last minute."""
        since = asyncio.get_running_loop().time() - RATE_OVER_S
        while self._settled and self._settled[0][0] < since:
            self._settled.popleft()
        return sum(count for _, count in self._settled) / RATE_OVER_S

    def hint(self) -> None:
        """Say that there may be new jobs; polling finds them anyway."""
        self._hint.set()

    @property
    def paused(self) -> bool:
        """Whether no jobs are claimed now."""
        return asyncio.get_running_loop().time() < self._paused_until

    def pause(self, paused: bool, max_s: float | None = None) -> float | None:
        """Stop claiming jobs, for at most ``max_s`` seconds (an hour if not given), or resume.

        Returns the seconds until it resumes by itself.
        """
        seconds = min(max_s or MAX_PAUSE_S, MAX_PAUSE_S) if paused else None
        self._paused_until = asyncio.get_running_loop().time() + seconds if seconds else 0.0
        self._hint.set()
        return seconds

    async def run(self) -> None:
        """Index for ever; ends only by cancellation.  A failing store is retried with backoff.

        While one batch is written the next is claimed and embedded; written are they one after the other.
        """
        backoff_s = self.poll_s
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                batch = None
                try:
                    batch = None if self.paused else await self._begun()
                    if writing is not None:
                        await writing
                except SomaError as error:
                    _log.warning("indexing waits: %s", error, extra={"fields": {"reason": error.reason}})
                    backoff_s = min(backoff_s * 2, 5.0)
                except Exception:  # noqa: BLE001 - a defect met by one batch must not end the indexing of all others
                    _log.exception("indexing a batch failed")
                    backoff_s = min(backoff_s * 2, 5.0)
                else:
                    backoff_s = self.poll_s
                if writing is not None and not writing.done():
                    # The next batch could not be begun; what is being written must not be overtaken all the same.
                    await asyncio.wait({writing})
                if writing is not None and writing.exception() is not None and batch is None:
                    _log.warning("a batch was given back: %s", writing.exception())
                writing = None if batch is None else asyncio.create_task(self._finished(batch))
                if batch is None or len(batch.jobs) < self.batch or backoff_s > self.poll_s:
                    await self._wait(backoff_s)
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def step(self) -> int:
        """Work off one batch and return how many jobs it held."""
        batch = await self._begun()
        if batch is None:
            return 0
        await self._finished(batch)
        return len(batch.jobs)

    async def _begun(self) -> _Batch | None:
        """Claim a batch and give its memories vectors; None when there is nothing to do."""
        # With several profiles each tenant's own counts, which is what no name stands for.
        profile = "" if self.others else self.embedding.profile.key
        jobs = await self.queue.claim(limit=self.batch, lease_s=self.lease_s, profile=profile)
        if not jobs:
            return None
        failpoint("index.claimed")
        async with self._answering_for(jobs):
            embeddings = {embedding.profile.key: embedding for embedding in (self.embedding, *self.others)}
            ready = [
                (collection, await self._embedded(embeddings[collection.profile], members))
                for collection, members in (await self._by_collection(jobs)).items()
            ]
            return _Batch(jobs, ready)

    async def _finished(self, batch: _Batch) -> None:
        """Write a batch to the index and settle its jobs; those of a lost collection wait until it is there again."""
        with suppress(CollectionLostError):
            async with self._answering_for(batch.jobs):
                for collection, ready in batch.ready:
                    if ready.made:
                        await self.queue.put_vectors(collection.profile, ready.made)
                        failpoint("index.vectors_kept")
                    await self._index(collection, ready.jobs)

    @asynccontextmanager
    async def _answering_for(self, jobs: Sequence[IndexJob]) -> AsyncIterator[None]:
        """Give jobs back when what is done for them fails."""
        try:
            yield
        except CollectionLostError:
            await self.queue.postpone(jobs, "COLLECTION_LOST", counts=False)
            raise
        except SomaError as error:
            await self.queue.postpone(jobs, error.reason, counts=error.code is not Code.UNAVAILABLE)
            raise
        except Exception:
            await self.queue.postpone(jobs, "INTERNAL", counts=True)
            raise

    async def _by_collection(self, jobs: Sequence[IndexJob]) -> dict[Collection, list[IndexJob]]:
        """Sort jobs by the collection of their tenant; those that no embedder here is for are given back."""
        placed: dict[Collection, list[IndexJob]] = defaultdict(list)
        strange: list[IndexJob] = []
        for job in jobs:
            place = await self._place(job.tenant)
            (strange if place is None else placed[place]).append(job)
        if strange:
            await self.queue.postpone(strange, EmbeddingProfileMismatchError.reason, counts=False)
        return placed

    async def _place(self, tenant: Tenant) -> Collection | None:
        for embedding in (self.embedding, *self.others):
            profile = embedding.profile
            try:
                return await self.queue.active_collection(tenant, profile.key, profile.dimension)
            except EmbeddingProfileMismatchError:
                continue
        return None

    async def _embedded(self, embedding: Embedding, jobs: Sequence[IndexJob]) -> _Ready:
        """Return the jobs with vectors; a text that cannot be embedded is postponed alone."""
        missing = [job for job in jobs if job.memory is not None and job.vectors is None]
        if not missing:
            return _Ready(jobs)
        try:
            made = await embedding.of_jobs(missing)
        except SomaError as error:
            if error.code is Code.UNAVAILABLE or len(missing) == 1:
                raise
            made = await self._one_by_one(embedding, missing)
        failpoint("index.embedded")
        by_id = {(job.tenant, job.memory_id): vectors for job, vectors in made}
        ready = []
        for job in jobs:
            vectors = job.vectors or by_id.get((job.tenant, job.memory_id))
            if job.memory is None or vectors is not None:
                ready.append(job.with_vectors(vectors))
        return _Ready(ready, made)

    async def _one_by_one(self, embedding: Embedding, jobs: Sequence[IndexJob]) -> list[tuple[IndexJob, StoredVectors]]:
        made: list[tuple[IndexJob, StoredVectors]] = []
        for job in jobs:
            try:
                made.extend(await embedding.of_jobs([job]))
            except SomaError as error:
                await self.queue.postpone([job], error.reason, counts=True)
        return made

    async def _index(self, collection: Collection, jobs: Sequence[IndexJob]) -> None:
        if await self.index.ensure(collection):
            collection = await self.queue.new_epoch(collection)
            await self.index.ensure(collection)
        failpoint("index.ensured")
        gone = [(job.tenant, job.memory_id) for job in jobs if job.memory is None]
        rows = [
            IndexRow(job.tenant, job.memory, job.version, job.vectors.dense, job.keyword_text)
            for job in jobs
            if job.memory is not None and job.vectors is not None
        ]
        refused: Mapping[tuple[str, str], str] = {}
        if rows:
            refused = await self._upserted(collection, rows)
            failpoint("index.upserted")
        if gone:
            await self.index.remove(collection, gone)
            failpoint("index.removed")
        poisoned = [job for job in jobs if (job.tenant.name, job.memory_id) in refused]
        if poisoned:
            await self.queue.postpone(poisoned, "ROW_REFUSED", counts=True)
        settled = [job for job in jobs if job not in poisoned]
        await self.queue.settle(settled, collection)
        failpoint("index.settled")
        self._settled.append((asyncio.get_running_loop().time(), len(settled)))

    async def _upserted(self, collection: Collection, rows: Sequence[IndexRow]) -> Mapping[tuple[str, str], str]:
        """Write rows and return which the index refused; those that were only written together go alone."""
        try:
            await self.index.upsert(collection, rows)
        except RowsRefusedError as error:
            accepted = [row for row in rows if (row.tenant.name, row.memory.memory_id) not in error.reasons]
            if accepted:
                return {**error.reasons, **await self._upserted(collection, accepted)}
            if len(rows) == 1:
                return error.reasons
            refused: dict[tuple[str, str], str] = {}
            for row in rows:
                refused.update(await self._upserted(collection, [row]))
            return refused
        return {}

    async def restored(self, collection: Collection) -> None:
        """Make a lost collection anew, empty, in a new epoch: its rows count as un-indexed from now on.

        One whose place another has taken is left alone.
        """
        active = [(one.name, one.epoch) for one in await self.queue.collections()]
        if (collection.name, collection.epoch) in active and await self.index.ensure(collection):
            await self.queue.new_epoch(collection)
            self.hint()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()

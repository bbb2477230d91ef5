"""The verb *rebuild*: makes a collection anew from the truth while the old one answers, then puts it in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from memory_server.core.embedding import Embedding
from memory_server.core.reconciling import Checkpoint, IndexTruth
from memory_server.domain.index_tasks import IndexTask, Key
from memory_server.ports import Collection, IndexJob, IndexQueue, IndexRow, RowsRefusedError, VectorIndex
from rpckit.failpoints import failpoint
from soma_contract.errors import EmbeddingProfileMismatchError
from soma_contract.tenant import Tenant, admin_tenant

_ALL_EPOCHS = 2**62
_SMALL_PASS = 64
"""When a pass over everything found no more than this, the rest is left to the overlay and the indexer."""


class IndexBuilds(Protocol):
    """What the truth knows of a collection that is being filled beside the one that is searched.

    A memory that both hold is marked with the epoch of the one being filled, which is the higher one, so that searches
    of the old one count it as indexed as before, and searches of the new one from its first day.
    """

    async def next_epoch(self) -> int:
        """Take an epoch that no collection has had."""
        ...

    async def rows(
        self, source: Collection, epoch: int, *, profile: str, tenant_name: str, after: Key | None, limit: int
    ) -> list[IndexJob]:
        """Read memories that the source holds and the collection of ``epoch`` does not, behind a key.

        Those that do not live have no memory.  Vectors are of ``profile``.
        """
        ...

    async def mark(self, rows: Sequence[IndexJob], source: Collection, epoch: int) -> None:
        """Note that these versions are in the collection of ``epoch`` as well; one that moved on is not."""
        ...

    async def left(self, source: Collection, epoch: int, tenant_name: str) -> int:
        """Count what the collection of ``epoch`` does not hold yet."""
        ...

    async def unmark(self, source: Collection, tenant_name: str) -> None:
        """Forget what an abandoned move noted about a tenant's memories."""
        ...

    async def switch(self, source: Collection, target: Collection) -> bool:
        """Put a collection in the place of another; False when that one was lost meanwhile."""
        ...

    async def elsewhere(self, profile: str, tenant_name: str) -> list[tuple[Tenant, str, int]]:
        """Read (tenant, profile, dimension) of those embedded with another profile; of one tenant or all (empty)."""
        ...

    async def collection(self, tenant: Tenant, profile: str, dimension: int) -> Collection:
        """Read the collection a tenant has, or would have, under a profile, making its entry if needed."""
        ...

    async def move(self, tenant: Tenant, source: Collection, target: Collection) -> bool:
        """Have a tenant searched in the target from now on; False when either collection was lost meanwhile."""
        ...

    async def queue_strays(self, tenant: Tenant, target: Collection) -> None:
        """Queue what a tenant's collection does not hold and nobody is bringing there."""
        ...

    async def drop_vectors(self, tenant: Tenant, profile: str, limit: int) -> int:
        """Delete up to ``limit`` vectors that a tenant has of a profile and return how many were."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the machine the work may take, and how long it waits for others to notice."""

    batch: int = 128
    rest: float = 0.5
    """Pause after each batch, as a multiple of what the batch took."""
    visible_after_s: float = 10.0
    """How long a row may take from its write to every search; the overlay covers as much before a switch is made."""
    retire_after_s: float = 60.0
    """How long searches that began before a switch may go on in the old collection."""


@dataclass(frozen=True, slots=True)
class Copying:
    """Writes what one collection holds into another, from the truth."""

    index: VectorIndex
    queue: IndexQueue
    builds: IndexBuilds
    pace: Pace

    async def passes(
        self,
        task: IndexTask,
        checkpoint: Checkpoint,
        source: Collection,
        target: Collection,
        embedding: Embedding,
        tenant_name: str = "",
    ) -> IndexTask:
        """Copy until a pass over everything finds next to nothing; return the task with what was done."""
        left = await self.builds.left(source, target.epoch, tenant_name)
        task = replace(task, total=task.done + left)
        while True:
            before = task.done
            task = await self._once(task, checkpoint, source, target, embedding, tenant_name)
            if task.done - before <= _SMALL_PASS:
                return task

    async def _once(
        self,
        task: IndexTask,
        checkpoint: Checkpoint,
        source: Collection,
        target: Collection,
        embedding: Embedding,
        tenant_name: str,
    ) -> IndexTask:
        loop = asyncio.get_running_loop()
        after: Key | None = None
        while True:
            started = loop.time()
            rows = await self.builds.rows(
                source,
                target.epoch,
                profile=embedding.profile.key,
                tenant_name=tenant_name,
                after=after,
                limit=self.pace.batch,
            )
            if not rows:
                return task
            after = rows[-1].tenant.name, rows[-1].memory_id
            copied = await self._copied([row for row in rows if row.memory is not None], source, target, embedding)
            task = replace(task, done=task.done + copied, total=max(task.total, task.done + copied))
            await checkpoint(task)
            await asyncio.sleep((loop.time() - started) * self.pace.rest)

    async def _copied(
        self, rows: Sequence[IndexJob], source: Collection, target: Collection, embedding: Embedding
    ) -> int:
        bare = [row for row in rows if row.vectors is None]
        made = dict(zip([_key(row) for row in bare], await embedding.of_jobs(bare), strict=True)) if bare else {}
        await self.queue.put_vectors(embedding.profile.key, list(made.values()))
        whole = [row if row.vectors is not None else row.with_vectors(made[_key(row)][1]) for row in rows]
        written = [
            IndexRow(row.tenant, row.memory, row.version, row.vectors.dense, row.keyword_text)
            for row in whole
            if row.memory is not None and row.vectors is not None
        ]
        refused: set[tuple[str, str]] = set()
        while written:
            try:
                await self.index.upsert(target, written)
                break
            except RowsRefusedError as error:
                # They stay unmarked: after the switch the indexer meets them one by one and says so.
                refused |= set(error.reasons)
                written = [row for row in written if (row.tenant.name, row.memory.memory_id) not in refused]
        taken = [row for row in whole if _key(row) not in refused]
        failpoint("rebuild.copied")
        await self.builds.mark(taken, source, target.epoch)
        failpoint("rebuild.marked")
        return len(taken)


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """Makes collections anew: whole ones beside the old, one tenant's rows in their place."""

    copying: Copying
    truth: IndexTruth
    embeddings: dict[str, Embedding]
    """By profile."""
    retry_poisoned: Callable[[str], Awaitable[int]]
    on_switched: Callable[[], None] = lambda: None
    """Told when another collection is searched from now on."""
    hint: Callable[[], None] = lambda: None

    async def run(self, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        """Do what a task asks for, from where it was left."""
        scope = task.scope
        if scope.poisoned_only:
            retried = await self.retry_poisoned(scope.tenant_name)
            self.hint()
            return replace(task, done=retried, total=retried)
        if scope.tenant_name:
            return await self._tenant(task, checkpoint)
        if task.progress.get("phase") == "retire":
            task = await self._retired(task, checkpoint)
        for collection in await self.copying.queue.collections():
            if scope.collection in ("", collection.name) and collection.name not in _finished(task):
                task = await self.anew(collection, task, checkpoint)
        return task

    async def anew(self, collection: Collection, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        """Make one collection anew and have it searched."""
        embedding = self.embeddings.get(collection.profile)
        if embedding is None:
            # Nobody here can search it either; it is left for a server that can.
            return _with_finished(task, collection.name)
        index, queue, builds = self.copying.index, self.copying.queue, self.copying.builds
        if await index.ensure(collection):
            await queue.new_epoch(collection)
            self.hint()
            return _with_finished(task, collection.name)
        target = await self._target(collection, task)
        task = task.at(
            phase="copy", collection=collection.name, source_epoch=collection.epoch, target_epoch=target.epoch
        )
        await checkpoint(task)
        task = await self.copying.passes(task, checkpoint, collection, target, embedding)
        await waited(self.copying.pace.visible_after_s, task, checkpoint)
        task = await self.copying.passes(task, checkpoint, collection, target, embedding)
        failpoint("rebuild.filled")
        if not await builds.switch(collection, target):
            # The old one was lost and is being filled anew by the indexer: that is what was asked for.
            await index.drop(target.name)
            return _with_finished(task, collection.name)
        failpoint("rebuild.switched")
        self.on_switched()
        self.hint()
        task = _with_finished(task, target.name).at(phase="retire")
        await checkpoint(task)
        return await self._retired(task, checkpoint)

    async def _target(self, collection: Collection, task: IndexTask) -> Collection:
        """The collection to fill: that of an interrupted run, if it is for the same source."""
        name = other_name(collection.name)
        epoch = 0
        at = task.progress
        if (at.get("collection"), at.get("source_epoch")) == (collection.name, collection.epoch):
            epoch = int(str(at.get("target_epoch", 0)))
        target = replace(
            collection, name=name, epoch=epoch or await self.copying.builds.next_epoch(), filled=bool(epoch)
        )
        while await self.copying.index.ensure(target):
            target = replace(target, epoch=await self.copying.builds.next_epoch())
        return target

    async def _retired(self, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        """Drop the old collection when nobody can be searching it any more."""
        await waited(self.copying.pace.retire_after_s, task, checkpoint)
        old = str(task.progress["collection"])
        if old not in {collection.name for collection in await self.copying.queue.collections()}:
            await self.copying.index.drop(old)
            failpoint("rebuild.dropped")
        return _with_finished(task, old).at(phase="copy")

    async def _tenant(self, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        """Have the indexer write a tenant's rows again, some at a time, so that the overlay holds those under way."""
        tenant = admin_tenant(task.scope.tenant_name, reason="an operator has its index rebuilt")
        for profile, embedding in self.embeddings.items():
            try:
                collection = await self.copying.queue.active_collection(tenant, profile, embedding.profile.dimension)
            except EmbeddingProfileMismatchError:
                continue
            task = replace(task, total=await self.copying.builds.left(collection, _ALL_EPOCHS, tenant.name))
            after = _progress_key(task)
            while rows := await self.copying.builds.rows(
                collection, _ALL_EPOCHS, profile=profile, tenant_name=tenant.name, after=after, limit=256
            ):
                after = rows[-1].tenant.name, rows[-1].memory_id
                keys = [_key(row) for row in rows]
                await self.truth.requeue(keys)
                self.hint()
                task = replace(task, done=task.done + len(rows)).at(after=list(after))
                while await self.truth.pending(keys):
                    await checkpoint(task)
                    await asyncio.sleep(0.1)
                await checkpoint(task)
        return task


def other_name(name: str) -> str:
    """The name beside a collection's: the two take turns."""
    return name.removesuffix("_b") if name.endswith("_b") else f"{name}_b"


async def waited(seconds: float, task: IndexTask, checkpoint: Checkpoint) -> None:
    """Wait without losing the task."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        await asyncio.sleep(min(left, 5.0))
        await checkpoint(task)


def _finished(task: IndexTask) -> list[str]:
    names = task.progress.get("finished", [])
    assert isinstance(names, list)
    return names


def _with_finished(task: IndexTask, name: str) -> IndexTask:
    return task.at(finished=[*_finished(task), name])


def _progress_key(task: IndexTask) -> Key | None:
    after = task.progress.get("after")
    return (str(after[0]), str(after[1])) if isinstance(after, list) else None


def _key(row: IndexJob) -> Key:
    return row.tenant.name, row.memory_id

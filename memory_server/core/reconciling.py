"""The verb *reconcile*: compares the index with the truth, memory by memory, and sends differences to the indexer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from memory_server.domain.index_tasks import (
    Bucket,
    Difference,
    Differences,
    IndexTask,
    Key,
    TruthRow,
    buckets,
    difference,
    digest,
    order,
)
from memory_server.ports import Collection, CollectionLostError, IndexQueue, VectorIndex
from rpckit.failpoints import failpoint
from soma_contract.ids import parse_memory_id
from soma_contract.tenant import admin_tenant, is_tenant_name

Checkpoint = Callable[[IndexTask], Awaitable[None]]
"""Keeps how far a task is; raises when another server has taken it over."""


class IndexTruth(Protocol):
    """What the truth says the index should hold."""

    async def tenants(self, collection: Collection) -> list[str]:
        """Read the tenants whose memories a collection holds."""
        ...

    async def belonging(self, collection: Collection, tenants: Sequence[str]) -> set[str]:
        """Of these tenants, read those whose memories the collection holds."""
        ...

    async def digests(self, collection: Collection, buckets: Sequence[Bucket]) -> list[tuple[str, int]]:
        """Compute (digest, memories) of what the index should hold in each bucket."""
        ...

    async def rows(self, collection: Collection, buckets: Sequence[Bucket]) -> dict[Key, TruthRow]:
        """Read the memories of buckets."""
        ...

    async def requeue(self, keys: Sequence[Key]) -> None:
        """Count memories as un-indexed and queue them, so that the indexer writes or removes them."""
        ...

    async def pending(self, keys: Sequence[Key]) -> int:
        """Count those that still wait for the indexer."""
        ...

    async def moving_to(self, profile: str) -> bool:
        """Whether memories are on their way to a profile's collections."""
        ...


@dataclass(frozen=True, slots=True)
class _Page:
    """A stretch of the index's order, (after, upto], with what the index holds there."""

    after: str
    upto: str | None
    held: dict[Key, int]
    odd: tuple[tuple[str, str], ...]
    """Keys that no memory can have, put there by something else than Soma; they are told, not touched."""


@dataclass(frozen=True, slots=True)
class Reconciling:
    """Compares collection after collection, a page at a time.

    A difference counts when two looks at index and truth show the same one, so that what the indexer does meanwhile is
    none.  Rows are repaired by jobs: the truth first counts them as un-indexed, which puts them into every recall's
    overlay, then the indexer writes or removes them.
    """

    index: VectorIndex
    queue: IndexQueue
    truth: IndexTruth
    hint: Callable[[], None] = lambda: None
    page_rows: int = 4_000
    bucket_rows: int = 500
    rest: float = 1.0
    """Pause after each page, as a multiple of what the page took."""
    patience_s: float = 60.0
    """How long repairs of one page may take before the next page is looked at."""

    async def run(self, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        """Compare what the task is about, from where it was left, and return it with all that was found."""
        for collection in await self._collections(task):
            if await self.index.ensure(collection):
                # All its rows are un-indexed from now on and queued again: nothing is left to compare.  Nor is there
                # where another collection has taken its place since it was listed.
                with suppress(CollectionLostError):
                    await self.queue.new_epoch(collection)
                self.hint()
                continue
            if task.progress.get("collection") != collection.name:
                after = f"{task.scope.tenant_name}|" if task.scope.tenant_name else ""
                task = task.at(collection=collection.name, after=after)
            task = await self._compare(collection, task, checkpoint)
            task = task.at(compared=[*_names(task), collection.name])
        return task

    async def _collections(self, task: IndexTask) -> list[Collection]:
        wanted = [
            collection
            for collection in await self.queue.collections()
            if task.scope.collection in ("", collection.name) and collection.name not in _names(task)
        ]
        # A tenant's rows may also lie where they do not belong, so all collections but others' own are looked at.
        tenant = task.scope.tenant_name
        return [one for one in wanted if not tenant or one.tenant_name in ("", tenant)]

    async def _is_active(self, collection: Collection) -> bool:
        active = await self.queue.collections()
        return (collection.name, collection.epoch) in [(one.name, one.epoch) for one in active]

    async def _compare(self, collection: Collection, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        loop = asyncio.get_running_loop()
        tenant = task.scope.tenant_name
        known = (
            {tenant} & await self.truth.belonging(collection, [tenant])
            if tenant
            else set(await self.truth.tenants(collection))
        )
        task = replace(task, total=max(task.total, task.done))
        after: str | None = str(task.progress["after"])
        while after is not None:
            started = loop.time()
            page = await self._page(collection, after, tenant)
            task = await self._page_compared(collection, page, known, task)
            after = page.upto
            await checkpoint(task.at(after=after) if after is not None else task)
            await asyncio.sleep((loop.time() - started) * self.rest)
        return task

    async def _page(self, collection: Collection, after: str, tenant: str, upto: str | None = None) -> _Page:
        """Read on in the index: to ``upto``, or about a page, ending with a key that a memory can have."""
        held: dict[Key, int] = {}
        odd: list[tuple[str, str]] = []
        # What is behind a tenant's last key: the character behind the bar.
        end = f"{tenant}}}" if tenant else None
        cursor, last = after, None
        while True:
            rows = await self.index.versions(collection, after_key=cursor, limit=self.page_rows)
            inside = [row for row in rows if end is None or order(row[:2]) < end]
            for name, memory_id, version in inside:
                if not _is_key(name, memory_id):
                    odd.append((name, memory_id))
                elif upto is None or order((name, memory_id)) <= upto:
                    held[name, memory_id] = version
            if not rows or len(inside) < len(rows):
                break
            cursor = order(rows[-1][:2])
            if held and upto is None:
                last = order(list(held)[-1])
                break
            if upto is not None and cursor > upto:
                break
        return _Page(after, last, held, tuple(key for key in odd if last is None or order(key) <= last))

    async def _page_compared(self, collection: Collection, page: _Page, known: set[str], task: IndexTask) -> IndexTask:
        tenant = task.scope.tenant_name
        strangers = {name for name, _ in page.held} - known
        if strangers:
            known |= await self.truth.belonging(collection, sorted(strangers))
        names = known if not tenant else known & {tenant}
        cut = buckets(page.after, page.upto, names, list(page.held), self.bucket_rows)
        told = await self.truth.digests(collection, cut)
        ours = _by_bucket(cut, page.held)
        differing = [bucket for bucket, (there, _), here in zip(cut, told, ours, strict=True) if there != digest(here)]
        task = replace(
            task,
            done=task.done + len(page.held),
            total=max(task.total, task.done + len(page.held)),
            differences=task.differences + Differences(compared=max(len(page.held), sum(count for _, count in told))),
        )
        found = await self._confirmed(collection, page, differing, known) if differing else {}
        if (found or page.odd) and not await self._is_active(collection):
            # Another one has taken its place: what it holds is nobody's concern any more.
            return task
        odd = [Difference.ORPHANED] * len(page.odd)
        kinds = [*found.values(), *odd]
        task = replace(
            task,
            differences=task.differences
            + Differences(
                missing=kinds.count(Difference.MISSING),
                outdated=kinds.count(Difference.OUTDATED),
                orphaned=kinds.count(Difference.ORPHANED),
            ),
        )
        if not task.scope.repair or not kinds:
            return task
        repaired = await self._repaired(collection, list(found), known)
        return replace(task, differences=task.differences + Differences(repaired=repaired))

    async def _confirmed(
        self, collection: Collection, page: _Page, differing: Sequence[Bucket], known: set[str]
    ) -> dict[Key, Difference]:
        """The differences that a second look at both sides shows again, with nothing having moved in between."""
        first = await self.truth.rows(collection, differing)
        held = page.held
        found = _differences(held, first, differing, known)
        if not found:
            return {}
        again = (await self._page(collection, page.after, "", page.upto or "~")).held
        second = await self.truth.rows(collection, differing)
        confirmed = _differences(again, second, differing, known)
        return {
            key: kind
            for key, kind in found.items()
            if confirmed.get(key) is kind and first.get(key) == second.get(key) and held.get(key) == again.get(key)
        }

    async def _repaired(self, collection: Collection, keys: Sequence[Key], known: set[str]) -> int:
        """Repair and return how many are: rows of others leave at once, all else by jobs."""
        own = [key for key in keys if key[0] in known]
        removable = [key for key in keys if key[0] not in known]
        # Rows of a tenant on its way here are not strangers, although the truth does not count them in yet.
        if removable and await self.truth.moving_to(collection.profile):
            removable = []
        if removable:
            named = [(admin_tenant(name, reason="the reconciler repairs"), each) for name, each in removable]
            await self.index.remove(collection, named)
            failpoint("reconcile.removed")
        if not own:
            return len(removable)
        await self.truth.requeue(own)
        failpoint("reconcile.requeued")
        self.hint()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience_s
        # What ends the wait is another process's work, so there is nothing to be told by.
        while (waiting := await self.truth.pending(own)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return len(removable) + len(own) - waiting


def _names(task: IndexTask) -> list[str]:
    names = task.progress.get("compared", [])
    assert isinstance(names, list)
    return names


def _is_key(tenant: str, memory_id: str) -> bool:
    try:
        return is_tenant_name(tenant) and parse_memory_id(memory_id) == memory_id
    except ValueError:
        return False


def _by_bucket(cut: Sequence[Bucket], held: dict[Key, int]) -> list[list[tuple[str, int]]]:
    """The index's rows of each bucket, by id; both come in the same order."""
    by_tenant: dict[str, list[tuple[str, int]]] = {}
    for (tenant, memory_id), version in held.items():
        by_tenant.setdefault(tenant, []).append((memory_id, version))
    return [
        [row for row in by_tenant.get(bucket.tenant_name, ()) if bucket.above < row[0] <= bucket.upto] for bucket in cut
    ]


def _differences(
    held: dict[Key, int], truth: dict[Key, TruthRow], cut: Sequence[Bucket], known: set[str]
) -> dict[Key, Difference]:
    within = {
        key
        for key in {*held, *truth}
        if any(one.tenant_name == key[0] and one.above < key[1] <= one.upto for one in cut)
    }
    return {
        key: kind
        for key in sorted(within, key=order)
        if (kind := difference(held.get(key), truth.get(key), belongs=key[0] in known)) is not None
    }

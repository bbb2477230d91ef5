"""The indexer writes one batch while it embeds the next, and never two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from memory_server.core.embedding import Embedding
from memory_server.core.indexing import Indexing
from memory_server.ports import Collection, IndexRow
from memory_server.stores.inmemory.cache import NullCache
from memory_server.stores.inmemory.index import InMemoryIndex
from soma_contract.embedders.base import Embedding as Embedded
from soma_contract.embedders.hashing import HashingEmbedder
from soma_contract.errors import ComponentUnavailableError
from soma_contract.tenant import Tenant, admin_tenant
from tests.conformance.truth_stores import TruthInMemory, remember, stored

ACME = admin_tenant("acme", reason="tests")
BATCH = 4


class Nobody:
    """A namespace without actors."""

    async def names(self, tenant: Tenant, namespace: str) -> tuple[str, ...]:
        return ()


@dataclass
class Office:
    """What happens, in its order."""

    told: list[str] = field(default_factory=list)
    may_write: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0


class SlowIndex(InMemoryIndex):
    """Writes when it is let."""

    def __init__(self, office: Office) -> None:
        super().__init__()
        self.office = office
        self.at_once = 0

    async def upsert(self, collection: Collection, rows: Sequence[IndexRow]) -> None:
        self.at_once += 1
        assert self.at_once == 1
        self.office.told.append("writing")
        try:
            await self.office.may_write.wait()
            if self.office.failures:
                self.office.failures -= 1
                raise ComponentUnavailableError(component="milvus")
            await super().upsert(collection, rows)
        finally:
            self.at_once -= 1
        self.office.told.append("written")


class HeardEmbedder(HashingEmbedder):
    """Says when it embeds."""

    office: Office

    async def embed(self, texts: Sequence[str], **how: Any) -> list[Embedded]:
        self.office.told.append("embedded")
        return await super().embed(texts, **how)


@dataclass
class Place:
    """An indexer on the twins."""

    truth: TruthInMemory
    office: Office
    indexing: Indexing

    async def until(self, count: int, what: str) -> None:
        """Wait until something has happened so often."""
        async with asyncio.timeout(5.0):
            while self.office.told.count(what) < count:  # noqa: ASYNC110 - the twins tell nobody
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Wait until nothing waits for the index."""
        async with asyncio.timeout(5.0):
            while (await self.truth.queue.lag()).rows:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def testing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashing embedder is for tests."""
    monkeypatch.setenv("SOMA_TESTING", "1")


@asynccontextmanager
async def indexing(memories: int) -> AsyncIterator[Place]:
    """An indexer at work on so many memories."""
    truth, office = TruthInMemory(), Office()
    await stored(truth, ACME, *(remember(f"memory {number}") for number in range(memories)))
    embedder = HeardEmbedder(16)
    embedder.office = office
    async with embedder:
        one = Indexing(
            truth.queue, SlowIndex(office), Embedding(embedder, NullCache(), Nobody()), batch=BATCH, poll_s=0.01
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.run())
            try:
                yield Place(truth, office, one)
            finally:
                task.cancel()


async def test_while_a_batch_is_written_the_next_is_embedded() -> None:
    async with indexing(3 * BATCH) as place:
        await place.until(2, "embedded")
        # The first is being written, and the third is not begun before it is done.
        for _ in range(200):
            await asyncio.sleep(0)
        assert sorted(place.office.told) == ["embedded", "embedded", "writing"]
        place.office.may_write.set()
        await place.settled()
        assert place.office.told.count("written") == 3


async def test_a_batch_that_could_not_be_written_is_written_later_and_the_next_all_the_same() -> None:
    async with indexing(3 * BATCH) as place:
        await place.until(2, "embedded")
        place.office.failures = 1
        place.office.may_write.set()
        await place.until(2, "written")
        await place.truth.pass_time(60.0)
        place.indexing.hint()
        await place.settled()
        assert (await place.truth.queue.lag()).poisoned == 0


async def test_an_index_that_is_away_is_not_asked_at_full_speed() -> None:
    async with indexing(40 * BATCH) as place:
        place.office.failures = 40
        place.office.may_write.set()
        await place.until(3, "writing")
        began = place.office.told.count("writing")
        await asyncio.sleep(0.1)
        # Without a rest after each failure all forty would be over by now.
        assert place.office.told.count("writing") - began <= 6


async def test_an_indexer_that_is_ended_leaves_nothing_running() -> None:
    async with indexing(2 * BATCH) as place:
        await place.until(1, "writing")
        before = len(asyncio.all_tasks())
    assert len(asyncio.all_tasks()) < before

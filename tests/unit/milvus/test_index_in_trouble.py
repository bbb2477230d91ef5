"""The Milvus index behind a network that misbehaves, and over an engine that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from memory_server.ports import Collection, CollectionLostError
from memory_server.stores.milvus.index import MilvusIndex, MilvusLimits
from memory_server.stores.milvus.wire import MilvusAddress
from soma_contract.errors import ComponentUnavailableError
from soma_contract.filters import EVERYTHING
from soma_embedded import EmbeddedStores
from tests.conformance.index_stores import ACME, DIMENSION, direction, memory_id, opened, row
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.stores

SLACK_S = 0.25


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(milvus_uri: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy.before(milvus_uri) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def index(proxy: FaultProxy, milvus_uri: str) -> AsyncIterator[MilvusIndex]:
    """The index through the proxy, with little patience."""
    limits = MilvusLimits(write_timeout_s=3.0, probe_timeout_s=0.3)
    async with MilvusIndex(MilvusAddress.parse(proxy.url(milvus_uri)), limits=limits) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def collection(index: MilvusIndex, proxy: FaultProxy, collection_prefix: str) -> AsyncIterator[Collection]:
    fresh = await opened(index, f"{collection_prefix}trouble")
    await index.upsert(fresh, [row(1, "apple")])
    yield fresh
    proxy.fault = Fault.PASS
    await answering(index)
    await index.drop(fresh.name)


async def search(index: MilvusIndex, collection: Collection, deadline_s: float = 5.0) -> list[str]:
    found = await index.search(
        ACME,
        collection,
        EVERYTHING,
        dense=direction(0.0),
        keyword_text="apple",
        limit=10,
        deadline_s=deadline_s,
    )
    assert found.dense is not None
    return [hit.memory_id for hit in found.dense]


async def answering(index: MilvusIndex) -> None:
    """Return when the index answers again: the channel reconnects with a backoff of its own."""
    async with asyncio.timeout(15.0):
        while True:
            try:
                await index.probe()
            except ComponentUnavailableError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.DROP_REPLIES])
async def test_a_silent_milvus_never_holds_a_call_beyond_its_deadline(
    index: MilvusIndex, collection: Collection, proxy: FaultProxy, fault: Fault
) -> None:
    assert await search(index, collection) == [memory_id(1)]
    proxy.fault = fault
    for deadline_s in (0.05, 0.3):
        started = time.monotonic()
        with pytest.raises(ComponentUnavailableError) as error:
            await search(index, collection, deadline_s)
        assert time.monotonic() - started < deadline_s + SLACK_S
        assert error.value.metadata == {"component": "milvus"}
    started = time.monotonic()
    with pytest.raises(ComponentUnavailableError):
        await index.probe()
    assert time.monotonic() - started < 0.3 + SLACK_S
    started = time.monotonic()
    with pytest.raises(ComponentUnavailableError):
        await index.upsert(collection, [row(2)])
    assert time.monotonic() - started < 3.0 + SLACK_S


async def test_a_silent_milvus_holds_nobody_who_has_never_spoken_to_it(proxy: FaultProxy, milvus_uri: str) -> None:
    proxy.fault = Fault.BLACK_HOLE
    async with MilvusIndex(MilvusAddress.parse(proxy.url(milvus_uri))) as fresh:
        started = time.monotonic()
        with pytest.raises(ComponentUnavailableError):
            await search(fresh, Collection("never", 1, "p", DIMENSION), 0.1)
        assert time.monotonic() - started < 0.1 + SLACK_S


async def test_a_cut_connection_is_an_error_at_once_and_heals(
    index: MilvusIndex, collection: Collection, proxy: FaultProxy
) -> None:
    proxy.fault = Fault.CUT
    started = time.monotonic()
    with pytest.raises(ComponentUnavailableError):
        await search(index, collection)
    assert time.monotonic() - started < 1.0
    proxy.fault = Fault.PASS
    await answering(index)
    assert await search(index, collection) == [memory_id(1)]


async def test_a_cancelled_search_leaves_the_next_ones_right(
    index: MilvusIndex, collection: Collection, proxy: FaultProxy
) -> None:
    await index.upsert(collection, [row(n, f"word{n}", angle=n / 20) for n in range(1, 21)])
    proxy.fault = Fault.DELAY
    proxy.delay_s = 0.005

    async def nearest(n: int) -> str:
        found = await index.search(
            ACME, collection, EVERYTHING, dense=direction(n / 20), keyword_text=None, limit=1, deadline_s=5.0
        )
        assert found.dense is not None
        return found.dense[0].memory_id

    wrong = cancelled = 0
    for turn in range(200):
        n = turn % 20 + 1
        task = asyncio.ensure_future(nearest(n))
        if turn % 2:
            await asyncio.wait([task], timeout=turn % 12 / 1_000)
            cancelled += task.cancel()
        await asyncio.wait([task])
        wrong += not task.cancelled() and task.result() != memory_id(n)
    assert (cancelled > 50, wrong) == (True, 0)


async def test_a_leg_that_is_refused_is_named_and_the_other_answers(index: MilvusIndex, collection: Collection) -> None:
    found = await index.search(
        ACME,
        collection,
        EVERYTHING,
        dense=direction(0.0, DIMENSION + 1),
        keyword_text="apple",
        limit=10,
        deadline_s=5.0,
    )
    assert found.dense is None
    assert dict(found.failures) == {"dense": "refused"}
    assert found.keyword is not None
    assert [hit.memory_id for hit in found.keyword] == [memory_id(1)]


async def test_no_more_collections_stay_loaded_than_allowed_and_all_answer(
    milvus_uri: str, collection_prefix: str
) -> None:
    limits = MilvusLimits(loaded_collections=2)
    async with MilvusIndex(MilvusAddress.parse(milvus_uri), limits=limits) as small:
        made = [await opened(small, f"{collection_prefix}lru{n}") for n in range(4)]
        for n, each in enumerate(made):
            await small.upsert(each, [row(n, "apple")])
        for _ in range(2):
            for n, each in enumerate(made):
                assert await search(small, each) == [memory_id(n)]
                assert len(small.loaded) <= 2
        for each in made:
            await small.drop(each.name)
        assert small.loaded == ()


# --- the engine dies ---


@pytest.mark.processes
async def test_rows_survive_a_killed_engine_unless_an_unacknowledged_write_was_to_replace_them(
    stores: EmbeddedStores, index: MilvusIndex, collection: Collection
) -> None:
    acknowledged: dict[str, int] = {}
    attempted: dict[str, list[int]] = {}
    stop, progress = asyncio.Event(), asyncio.Event()

    async def write(writer: int) -> None:
        version = 0
        while not stop.is_set():
            version += 1
            # Each write replaces half of the rows of the one before and adds as many.
            rows = [row(10_000 * writer + 10 * version + n, "word", version=version) for n in range(20)]
            for each in rows:
                attempted.setdefault(each.memory.memory_id, []).append(version)
            try:
                await index.upsert(collection, rows)
            except ComponentUnavailableError:
                await asyncio.sleep(0.05)
            else:
                acknowledged.update((each.memory.memory_id, version) for each in rows)
                progress.set()

    async with asyncio.TaskGroup() as writers:
        for writer in range(1, 4):
            writers.create_task(write(writer))
        for _ in range(3):
            progress.clear()
            async with asyncio.timeout(20.0):
                await progress.wait()
            await stores.kill("milvus")
            await stores.ready("milvus")
        await answering(index)
        stop.set()
    held = {found: version for _, found, version in await index.versions(collection, after_key="", limit=16_384)}
    lost = {
        found
        for found, version in acknowledged.items()
        if held.get(found, 0) < version and attempted[found][-1] == version
    }
    invented = {found for found, version in held.items() if version not in attempted.get(found, [1])}
    assert (lost, invented) == (set(), set())


@pytest.mark.processes
async def test_a_wiped_engine_is_told_apart_from_an_empty_one(
    stores: EmbeddedStores, index: MilvusIndex, collection: Collection
) -> None:
    await stores.wipe("milvus")
    await stores.ready("milvus")
    await answering(index)
    with pytest.raises(CollectionLostError):
        await search(index, collection)
    assert await index.ensure(collection) is True
    newer = replace(collection, epoch=collection.epoch + 1)
    assert await index.ensure(newer) is False
    assert await search(index, newer) == []
    await index.upsert(newer, [row(1, "apple")])
    assert await search(index, newer) == [memory_id(1)]

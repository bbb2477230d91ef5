"""The Redis cache behind a network that misbehaves: misses, never errors, never another call's answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from memory_server.stores.redis import keys
from memory_server.stores.redis.cache import RedisCache
from memory_server.stores.redis.wire import RedisLimits
from soma_contract.errors import ComponentUnavailableError
from soma_contract.ids import new_memory_id
from soma_contract.memory import Memory, Target
from soma_contract.tenant import admin_tenant
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.stores

ACME = admin_tenant("acme", reason="tests")
GLOBEX = admin_tenant("globex", reason="tests")
PATIENT = RedisLimits(budget_s=5.0, pause_s=0.0)
HASTY = RedisLimits(budget_s=0.05, pause_s=3_600.0)


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(redis_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy.before(redis_url) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def direct(redis_url: str) -> AsyncIterator[Redis]:
    """Redis itself, past the cache."""
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client


class Clock:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


# --- Redis is away ---


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.BLACK_HOLE, Fault.DROP_REPLIES])
async def test_a_dead_redis_makes_misses_and_costs_one_try_a_pause(
    proxy: FaultProxy, redis_url: str, fault: Fault
) -> None:
    clock = Clock()
    async with RedisCache(proxy.url(redis_url), limits=HASTY, monotonic=clock) as cache:
        proxy.fault = fault
        started = time.monotonic()
        assert await cache.get_embeddings([b"k"]) == [None]
        assert time.monotonic() - started < HASTY.budget_s + 0.25
        tried = proxy.counts.connections
        started = time.monotonic()
        for _ in range(1_000):
            assert await cache.get_embeddings([b"k"]) == [None]
            await cache.put_embeddings({b"k": b"v"})
        assert proxy.counts.connections == tried
        assert cache.counts.skipped == 2_000
        assert time.monotonic() - started < 1.0
        proxy.fault = Fault.PASS
        clock.now_s += HASTY.pause_s
        await cache.put_embeddings({b"k": b"v"})
        assert await cache.get_embeddings([b"k"]) == [b"v"]


async def test_no_call_but_probe_and_erase_raises_while_redis_is_away(proxy: FaultProxy, redis_url: str) -> None:
    async with RedisCache(proxy.url(redis_url), limits=RedisLimits(pause_s=0.0)) as cache:
        proxy.fault = Fault.CUT
        kept = Memory(memory_id=new_memory_id(), key="k", version=1)
        assert await cache.get_embeddings([b"a", b"b"]) == [None, None]
        await cache.put_embeddings({b"a": b"1"})
        await cache.put_memories(ACME, [kept])
        await cache.put_tombstones(ACME, {new_memory_id(): 1})
        assert await cache.get_memory(ACME, Target(kept.memory_id)) is None
        assert await cache.get_memory(ACME, Target(key="k")) is None
        with pytest.raises(ComponentUnavailableError):
            await cache.probe()
        with pytest.raises(ComponentUnavailableError):
            await cache.erase(ACME)


async def test_a_redis_that_refuses_the_connection_makes_misses() -> None:
    async with RedisCache("redis://127.0.0.1:1/0") as cache:
        assert await cache.get_embeddings([b"k"]) == [None]
        assert cache.counts.failures == 1


# --- tombstones ---


async def kind_of(direct: Redis, memory: Memory) -> bytes:
    """M or T, whatever Redis holds for a memory of acme."""
    held = await direct.get(keys.memory_cache_key(ACME, memory.memory_id))
    assert isinstance(held, bytes)
    return held[36:37]


async def test_a_tombstone_that_did_not_arrive_silences_the_memory_until_it_has(
    proxy: FaultProxy, redis_url: str, direct: Redis
) -> None:
    async with RedisCache(proxy.url(redis_url), limits=PATIENT) as cache:
        kept, other = (Memory(memory_id=new_memory_id(), version=1) for _ in range(2))
        await cache.put_memories(ACME, [kept, other])
        proxy.fault = Fault.CUT
        await cache.put_tombstones(ACME, {kept.memory_id: 2})
        assert await cache.get_memory(ACME, Target(other.memory_id)) is None
        proxy.fault = Fault.PASS
        assert await kind_of(direct, kept) == b"M", "the stale memory is still there"
        assert await cache.get_memory(ACME, Target(kept.memory_id)) is None
        assert await cache.get_memory(ACME, Target(other.memory_id)) == other
        assert await kind_of(direct, kept) == b"T"


async def test_after_too_many_lost_tombstones_no_memory_is_believed_until_all_have_expired(
    proxy: FaultProxy, redis_url: str
) -> None:
    clock = Clock()
    limits = RedisLimits(budget_s=5.0, pause_s=0.0, owed_tombstones=2, memory_ttl_s=600.0)
    async with RedisCache(proxy.url(redis_url), limits=limits, monotonic=clock) as cache:
        kept = Memory(memory_id=new_memory_id(), version=1)
        await cache.put_memories(ACME, [kept])
        proxy.fault = Fault.CUT
        await cache.put_tombstones(ACME, {kept.memory_id: 2, new_memory_id(): 1, new_memory_id(): 1})
        proxy.fault = Fault.PASS
        assert await cache.get_memory(ACME, Target(kept.memory_id)) is None
        clock.now_s += 600.0
        # On this clock a memory's time is over; in Redis it lives on, which shows that the wait has ended.
        assert await cache.get_memory(ACME, Target(kept.memory_id)) == kept


# --- what is in Redis ---


async def test_a_value_under_another_key_is_a_miss_and_is_counted(redis_url: str, direct: Redis) -> None:
    async with RedisCache(redis_url, limits=PATIENT) as cache:
        kept = Memory(memory_id=new_memory_id(), version=1, text="secret of acme")
        await cache.put_memories(ACME, [kept])
        value = await direct.get(keys.memory_cache_key(ACME, kept.memory_id))
        assert value is not None
        await direct.set(keys.memory_cache_key(GLOBEX, kept.memory_id), value)
        assert await cache.get_memory(GLOBEX, Target(kept.memory_id)) is None
        assert cache.counts.foreign == 1
        # A value that is bound elsewhere does not keep the right one out either.
        own = Memory(memory_id=kept.memory_id, version=1, text="of globex")
        await cache.put_memories(GLOBEX, [own])
        assert await cache.get_memory(GLOBEX, Target(kept.memory_id)) == own


@pytest.mark.parametrize("junk", [b"", b"x", b"\x00" * 16, b"\xff" * 100])
async def test_junk_is_a_miss(redis_url: str, direct: Redis, junk: bytes) -> None:
    async with RedisCache(redis_url, limits=PATIENT) as cache:
        memory_id = new_memory_id()
        await direct.set(keys.embedding_cache_key(b"k"), junk)
        for value in (junk, keys.bound(keys.memory_cache_key(ACME, memory_id), junk)):
            await direct.set(keys.memory_cache_key(ACME, memory_id), value)
            assert await cache.get_memory(ACME, Target(memory_id)) is None
        assert await cache.get_embeddings([b"k"]) == [None]


async def test_a_key_of_another_type_is_a_miss(redis_url: str, direct: Redis) -> None:
    async with RedisCache(redis_url, limits=PATIENT) as cache:
        await direct.delete(keys.embedding_cache_key(b"list"))
        await direct.rpush(keys.embedding_cache_key(b"list"), "x")
        await cache.put_embeddings({b"fine": b"1"})
        assert await cache.get_embeddings([b"list", b"fine"]) == [None, b"1"]


async def test_everything_expires_and_not_all_at_once(redis_url: str, direct: Redis) -> None:
    limits = RedisLimits(budget_s=5.0, memory_ttl_s=100.0, embedding_ttl_s=1_000.0, jitter=0.2)
    async with RedisCache(redis_url, limits=limits) as cache:
        kept = [Memory(memory_id=new_memory_id(), key=f"k{n}", version=1) for n in range(50)]
        await cache.put_memories(ACME, kept)
        await cache.put_tombstones(GLOBEX, {kept[0].memory_id: 1})
        await cache.put_embeddings({f"{n}".encode(): b"v" for n in range(50)})
        memories = [await direct.pttl(keys.memory_cache_key(ACME, m.memory_id)) for m in kept]
        aliases = [await direct.pttl(keys.name_cache_key(ACME, "default", m.key)) for m in kept]
        embeddings = [await direct.pttl(keys.embedding_cache_key(f"{n}".encode())) for n in range(50)]
        tombstone = await direct.pttl(keys.memory_cache_key(GLOBEX, kept[0].memory_id))
    for lifetimes, longest in ((memories, 100_000), (aliases, 100_000), (embeddings, 1_000_000)):
        assert all(0.7 * longest < lifetime <= longest for lifetime in lifetimes)
        assert max(lifetimes) - min(lifetimes) > 0.05 * longest
    assert tombstone > max(memories)


async def test_every_key_of_a_tenants_data_names_the_tenant(redis_url: str, direct: Redis) -> None:
    async with RedisCache(redis_url, limits=PATIENT) as cache:
        await cache.put_memories(ACME, [Memory(memory_id=new_memory_id(), key="k", coordinate=(0, 0, 0), version=1)])
        await cache.put_tombstones(ACME, {new_memory_id(): 1})
        names = [name for name in await direct.keys("*") if isinstance(name, bytes)]
    assert sorted(name.rpartition(b":")[0] for name in names) == [
        b"soma:1:t:acme:c",
        b"soma:1:t:acme:k",
        b"soma:1:t:acme:m",
        b"soma:1:t:acme:m",
    ]


# --- cancellation ---


async def test_cancelled_calls_leave_no_answer_for_the_next(proxy: FaultProxy, redis_url: str) -> None:
    chance = random.Random(7)
    canaries = {f"key-{n}".encode(): f"canary-of-{n}".encode() for n in range(200)}
    wrong, right, cancelled = 0, 0, 0
    async with RedisCache(proxy.url(redis_url), limits=PATIENT) as cache:
        await cache.put_embeddings(canaries)
        proxy.fault = Fault.DELAY
        proxy.delay_s = 0.002

        async def ask() -> None:
            nonlocal wrong, right
            key = chance.choice(list(canaries))
            (answer,) = await cache.get_embeddings([key])
            wrong += answer not in (canaries[key], None)
            right += answer == canaries[key]

        async def caller() -> None:
            nonlocal cancelled
            for turn in range(100):
                task = asyncio.ensure_future(ask())
                if turn % 4:
                    await asyncio.wait([task], timeout=chance.random() * 0.008)
                    cancelled += task.cancel()
                await asyncio.wait([task])

        async with asyncio.TaskGroup() as callers:
            for _ in range(32):
                callers.create_task(caller())
        assert cancelled >= 2_000
        assert (wrong, cache.counts.foreign) == (0, 0)
        assert right >= 800
        # No slot of the pool is lost: as many calls as it has connections still run at once.
        answers = await asyncio.gather(*(cache.get_embeddings([key]) for key in canaries))
        assert answers == [[value] for value in canaries.values()]
        assert proxy.open_connections <= PATIENT.connections + 1
    async with asyncio.timeout(5.0):
        await proxy.idle()


async def test_a_client_that_keeps_its_connection_after_a_cancellation_does_read_wrong_answers(
    proxy: FaultProxy, redis_url: str, direct: Redis
) -> None:
    """The control: the test above can fail."""
    for n in range(10):
        await direct.set(f"key-{n}", f"canary-of-{n}")
    url = urlsplit(redis_url)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(f"AUTH {url.password}\r\nSELECT {url.path[1:]}\r\n".encode())
    assert [await reader.readline(), await reader.readline()] == [b"+OK\r\n", b"+OK\r\n"]
    proxy.fault = Fault.DELAY
    proxy.delay_s = 0.02

    async def get(key: str) -> str:
        writer.write(f"GET {key}\r\n".encode())
        await reader.readline()
        return (await reader.readline()).decode().strip()

    wrong = 0
    for n in range(10):
        task = asyncio.ensure_future(get(f"key-{n}"))
        if n == 5:
            await asyncio.wait([task], timeout=0.005)
            task.cancel()
        await asyncio.wait([task])
        wrong += not task.cancelled() and task.result() != f"canary-of-{n}"
    writer.close()
    assert wrong == 4

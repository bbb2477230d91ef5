"""What every Cache must do: the in-memory twin and Redis pass the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from memory_server.ports import Cache
from memory_server.stores.inmemory.cache import InMemoryCache
from memory_server.stores.redis.cache import RedisCache
from memory_server.stores.redis.wire import RedisLimits
from soma_contract.ids import new_memory_id
from soma_contract.memory import Kind, Memory, Provenance, Target, Vector
from soma_contract.tenant import admin_tenant

ACME = admin_tenant("acme", reason="tests")
GLOBEX = admin_tenant("globex", reason="tests")

START = datetime(2024, 5, 1, tzinfo=UTC)


class Now:
    """A wall clock that only the test moves."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture(params=["inmemory", pytest.param("redis", marks=pytest.mark.stores)])
def cache_address(request: pytest.FixtureRequest) -> str:
    """Where the cache under test is; empty for the twin."""
    return "" if request.param == "inmemory" else str(request.getfixturevalue("redis_url"))


@pytest_asyncio.fixture(loop_scope="session")
async def cache(cache_address: str, now: Now) -> AsyncIterator[Cache]:
    """The twin and Redis, one after the other; patient, because the machine may be busy."""
    if not cache_address:
        yield InMemoryCache(now)
        return
    async with RedisCache(cache_address, limits=RedisLimits(budget_s=5.0), now=now) as redis:
        await redis.erase(ACME)
        await redis.erase(GLOBEX)
        yield redis


def memory(version: int = 1, **fields: object) -> Memory:
    """A memory with something in every field."""
    full = Memory(
        memory_id=new_memory_id(),
        namespace="work",
        key="plan/1",
        coordinate=(0.25, -1.0, 1 / 3),
        kind=Kind.PROCEDURAL,
        schema_type="note",
        schema_version="2",
        persona_id="butler",
        text='a "text"\nwith é and \U0001f600',
        payload_json='{"n": 12345678901234567890123456789}',
        tags=("a", "b"),
        actor="Ana",
        session_id="s",
        sequence=2**53 + 1,
        provenance=Provenance("Ana", "chat", 0.1),
        importance=0.1 + 0.2,
        relevance=-0.0,
        occurred_at=START + timedelta(microseconds=1),
        expires_at=datetime.now(UTC) + timedelta(days=1),
        embedding=Vector.of([0.6, 0.8]),
        embedding_model="m",
        created_at=START,
        updated_at=START,
        version=version,
    )
    return replace(full, **fields)  # type: ignore[arg-type]


# --- embeddings ---


async def test_an_embedding_is_found_by_its_content_key(cache: Cache) -> None:
    await cache.put_embeddings({b"one": b"\x00\xff" * 1_000, b"two": b""})
    assert await cache.get_embeddings([b"two", b"none", b"one"]) == [b"", None, b"\x00\xff" * 1_000]


async def test_many_embeddings_keep_the_order_of_their_keys(cache: Cache) -> None:
    entries = {f"key-{n}".encode(): f"value-{n}".encode() for n in range(300)}
    await cache.put_embeddings(entries)
    assert await cache.get_embeddings(list(entries)) == list(entries.values())
    assert await cache.get_embeddings([]) == []


# --- memories ---


async def test_a_memory_reads_back_to_the_last_bit(cache: Cache) -> None:
    kept = memory()
    await cache.put_memories(ACME, [kept])
    assert await cache.get_memory(ACME, Target(kept.memory_id)) == kept


async def test_a_memory_is_found_by_key_and_by_coordinate(cache: Cache) -> None:
    kept = memory()
    await cache.put_memories(ACME, [kept])
    assert await cache.get_memory(ACME, Target(namespace="work", key="plan/1")) == kept
    assert await cache.get_memory(ACME, Target(namespace="work", coordinate=(0.25, -1.0, 1 / 3))) == kept
    assert await cache.get_memory(ACME, Target(namespace="home", key="plan/1")) is None
    assert await cache.get_memory(ACME, Target(namespace="work", key="plan/2")) is None
    assert await cache.get_memory(ACME, Target(namespace="work", coordinate=(0.25, -1.0, 0.5))) is None


async def test_a_memory_is_no_longer_found_under_a_key_it_gave_up(cache: Cache) -> None:
    kept = memory()
    await cache.put_memories(ACME, [kept])
    renamed = replace(kept, key="plan/2", version=2)
    await cache.put_memories(ACME, [renamed])
    assert await cache.get_memory(ACME, Target(namespace="work", key="plan/1")) is None
    assert await cache.get_memory(ACME, Target(namespace="work", key="plan/2")) == renamed


async def test_another_tenants_memory_is_not_there(cache: Cache) -> None:
    kept = memory()
    await cache.put_memories(ACME, [kept])
    assert await cache.get_memory(GLOBEX, Target(kept.memory_id)) is None
    assert await cache.get_memory(GLOBEX, Target(namespace="work", key="plan/1")) is None


async def test_an_older_version_never_replaces_a_newer_one(cache: Cache) -> None:
    kept = memory(version=10)
    await cache.put_memories(ACME, [kept])
    await cache.put_memories(ACME, [replace(kept, version=9, text="old")])
    assert await cache.get_memory(ACME, Target(kept.memory_id)) == kept
    newer = replace(kept, version=11, text="new")
    await cache.put_memories(ACME, [newer])
    assert await cache.get_memory(ACME, Target(kept.memory_id)) == newer


async def test_a_tombstone_keeps_late_values_out_and_newer_ones_in(cache: Cache) -> None:
    kept = memory(version=4)
    await cache.put_memories(ACME, [kept])
    await cache.put_tombstones(ACME, {kept.memory_id: 5})
    for version in (3, 4, 5):
        await cache.put_memories(ACME, [replace(kept, version=version)])
        assert await cache.get_memory(ACME, Target(kept.memory_id)) is None
        assert await cache.get_memory(ACME, Target(namespace="work", key="plan/1")) is None
    born_again = replace(kept, version=6)
    await cache.put_memories(ACME, [born_again])
    await cache.put_tombstones(ACME, {kept.memory_id: 5})
    assert await cache.get_memory(ACME, Target(kept.memory_id)) == born_again


async def test_a_tombstone_of_the_same_version_wins(cache: Cache) -> None:
    kept = memory(version=4)
    await cache.put_memories(ACME, [kept])
    await cache.put_tombstones(ACME, {kept.memory_id: 4})
    assert await cache.get_memory(ACME, Target(kept.memory_id)) is None


async def test_tombstones_of_one_tenant_do_not_touch_another(cache: Cache) -> None:
    kept = memory()
    await cache.put_memories(ACME, [kept])
    await cache.put_tombstones(GLOBEX, {kept.memory_id: 99})
    assert await cache.get_memory(ACME, Target(kept.memory_id)) == kept


async def test_an_expired_memory_is_not_answered(cache: Cache, now: Now) -> None:
    kept = memory(expires_at=now.at + timedelta(seconds=60))
    await cache.put_memories(ACME, [kept])
    now.at += timedelta(seconds=59, microseconds=999_999)
    assert await cache.get_memory(ACME, Target(kept.memory_id)) == kept
    now.at += timedelta(microseconds=1)
    assert await cache.get_memory(ACME, Target(kept.memory_id)) is None


async def test_an_expired_memory_is_not_even_kept(cache: Cache, now: Now) -> None:
    kept = memory(expires_at=now.at - timedelta(seconds=1))
    await cache.put_memories(ACME, [kept])
    assert await cache.get_memory(ACME, Target(kept.memory_id)) is None


async def test_erasing_a_tenant_leaves_nothing_of_it_and_everything_of_others(cache: Cache) -> None:
    own, foreign = [memory() for _ in range(5)], memory()
    await cache.put_memories(ACME, own)
    await cache.put_memories(GLOBEX, [foreign])
    await cache.put_tombstones(ACME, {new_memory_id(): 1})
    assert await cache.erase(ACME) >= 6
    assert await cache.erase(ACME) == 0
    assert [await cache.get_memory(ACME, Target(m.memory_id)) for m in own] == [None] * 5
    assert await cache.get_memory(GLOBEX, Target(foreign.memory_id)) == foreign


async def test_nothing_to_keep_is_fine(cache: Cache) -> None:
    await cache.put_memories(ACME, [])
    await cache.put_tombstones(ACME, {})
    await cache.put_embeddings({})


async def test_the_probe_answers(cache: Cache) -> None:
    await cache.probe()

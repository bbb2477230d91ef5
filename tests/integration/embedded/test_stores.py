"""The embedded stores as real processes: their data, their addresses and what happens when one is killed."""

from __future__ import annotations

import os
import signal

import asyncpg
import pytest
from pymilvus import MilvusClient
from redis.asyncio import Redis

from soma_embedded import EmbeddedStores, State
from soma_embedded.stores import StoreName
from tests.support.stores import FreshDatabase, data_directory

DURABLE = ("fsync", "synchronous_commit", "full_page_writes")

pytestmark = [pytest.mark.stores, pytest.mark.processes]


async def test_every_store_answers_its_own_driver(stores: EmbeddedStores) -> None:
    connection = await asyncpg.connect(stores.postgres_url)
    async with Redis.from_url(stores.redis_url) as redis:
        answers = (await connection.fetchval("SELECT current_user"), await redis.ping())
    await connection.close()
    milvus = MilvusClient(stores.milvus_uri)
    collections = milvus.list_collections()
    milvus.close()
    assert ("soma_app", True) == answers
    assert [] == collections


async def test_a_wrong_password_is_refused(stores: EmbeddedStores) -> None:
    user, _, place = stores.postgres_url.rpartition("@")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"{user}x@{place}")


async def test_the_application_role_can_neither_make_tables_nor_pass_row_security(
    fresh_database: FreshDatabase,
) -> None:
    connection = await asyncpg.connect(fresh_database.url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE mine (id int)")
        rights = await connection.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        )
    finally:
        await connection.close()
    assert (False, False, False, False) == tuple(rights)


async def test_redis_evicts_and_writes_nothing_to_disk(stores: EmbeddedStores) -> None:
    async with Redis.from_url(stores.redis_url, decode_responses=True) as redis:
        found = {name: (await redis.config_get(name))[name] for name in ("maxmemory-policy", "save", "appendonly")}
    assert {"maxmemory-policy": "allkeys-lru", "save": "", "appendonly": "no"} == found


@pytest.mark.parametrize("name", ["postgres", "redis", "milvus"])
async def test_a_killed_store_comes_back_on_the_same_address(stores: EmbeddedStores, name: StoreName) -> None:
    before, restarts, address = stores.pids[name], stores.restarts[name], stores.environment()
    await stores.kill(name)
    await stores.ready(name)
    assert restarts + 1 == stores.restarts[name]
    assert address == stores.environment()
    assert State.READY is stores.states[name]
    assert before != stores.pids[name]


async def test_committed_rows_survive_a_kill_of_postgres(stores: EmbeddedStores, fresh_database: FreshDatabase) -> None:
    connection = await asyncpg.connect(fresh_database.admin_url)
    await connection.execute("CREATE TABLE kept (id int)")
    await connection.executemany("INSERT INTO kept VALUES ($1)", [(number,) for number in range(100)])
    await stores.kill("postgres")
    await stores.ready("postgres")
    connection = await asyncpg.connect(fresh_database.admin_url)
    kept = await connection.fetchval("SELECT count(*) FROM kept")
    await connection.close()
    assert 100 == kept


async def test_a_wiped_index_is_empty_and_answers(stores: EmbeddedStores, collection_prefix: str) -> None:
    milvus = MilvusClient(stores.milvus_uri)
    milvus.create_collection(f"{collection_prefix}c", dimension=4)
    milvus.close()
    await stores.wipe("milvus")
    milvus = MilvusClient(stores.milvus_uri)
    collections = milvus.list_collections()
    milvus.close()
    assert [] == collections


async def test_what_was_stored_is_there_after_stop_and_start_under_a_long_path() -> None:
    with data_directory() as path:
        deep = path / ("long-" * 20) / ("path " * 20) / "data"
        async with EmbeddedStores(deep) as stores:
            connection = await asyncpg.connect(stores.postgres_admin_url)
            await connection.execute("CREATE TABLE kept AS SELECT 7 AS id")
            await connection.close()
            milvus = MilvusClient(stores.milvus_uri)
            milvus.create_collection("kept", dimension=4)
            milvus.close()
            pids = list(stores.pids.values())
        alive = [pid for pid in pids if pid is not None and _exists(pid)]
        assert [] == alive
        async with EmbeddedStores(deep) as stores:
            connection = await asyncpg.connect(stores.postgres_admin_url)
            kept = await connection.fetchval("SELECT id FROM kept")
            durability = [await connection.fetchval(f"SHOW {name}") for name in DURABLE]
            await connection.close()
            milvus = MilvusClient(stores.milvus_uri)
            collections = milvus.list_collections()
            milvus.close()
    assert (7, ["kept"]) == (kept, collections)
    assert ["on", "on", "on"] == durability


async def test_a_frozen_store_can_be_restarted(stores: EmbeddedStores) -> None:
    await stores.kill("redis", signal.SIGSTOP)
    await stores.restart("redis")
    async with Redis.from_url(stores.redis_url) as redis:
        assert await redis.ping() is True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

"""The schema and what a server asks of a Postgres before it trusts it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.errors import PostgresRefusedError
from memory_server.stores.postgres.migrate import migrate, schema_version
from memory_server.stores.postgres.pools import PoolSizes, open_pools
from soma_contract.errors import ComponentUnavailableError
from soma_embedded import EmbeddedStores
from tests.conformance.truth_stores import Database, made_database
from tests.support.elsewhere import Elsewhere

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(loop_scope="session")
async def database(backing: Elsewhere | EmbeddedStores) -> AsyncIterator[Database]:
    """A database of its own, migrated."""
    fresh = await made_database(backing)
    await migrate(fresh.admin_url)
    yield fresh
    name = fresh.admin_url.rsplit("/", 1)[1]
    admin = await asyncpg.connect(fresh.admin_url.rsplit("/", 1)[0] + "/postgres")
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def refusal(url: str) -> str:
    """Why a server refuses this database."""
    with pytest.raises(PostgresRefusedError) as refused:
        async with open_pools(url, PoolSizes(1, 1, 1, 1)):
            pass
    return str(refused.value)


async def test_a_migrated_database_is_accepted_and_migrated_once(database: Database) -> None:
    async with open_pools(database.url, PoolSizes(1, 1, 1, 1)) as pools:
        await pools.probe()
    assert [] == await migrate(database.admin_url)


async def test_migrations_at_the_same_moment_happen_once(backing: Elsewhere | EmbeddedStores) -> None:
    fresh = await made_database(backing)
    applied = await asyncio.gather(*(migrate(fresh.admin_url) for _ in range(4)))
    assert [name for name, _ in sql.migrations()] == sorted(name for names in applied for name in names)


async def test_a_database_without_schema_is_refused(backing: Elsewhere | EmbeddedStores, database: Database) -> None:
    empty = await made_database(backing)
    assert "no Soma schema" in await refusal(empty.url)


async def test_an_older_schema_is_refused(database: Database) -> None:
    await run(database.admin_url, "DELETE FROM schema_migrations WHERE name = '0003_pre_identity'")
    assert "older than this server: 0003_pre_identity is missing" in await refusal(database.url)


async def test_a_newer_schema_is_refused_unless_it_says_that_this_server_may_go_on(database: Database) -> None:
    newer = "INSERT INTO schema_migrations VALUES ('9999_pre_future', 'pre', 9999, {}, '\\x00')"
    await run(database.admin_url, newer.format(schema_version()))
    async with open_pools(database.url, PoolSizes(1, 1, 1, 1)):
        pass
    await run(database.admin_url, "UPDATE schema_migrations SET oldest_server = 9999 WHERE number = 9999")
    assert "newer than this server" in await refusal(database.url)
    with pytest.raises(PostgresRefusedError, match="9999_pre_future, which this version of Soma does not know"):
        await migrate(database.admin_url)


async def test_a_migration_that_was_changed_afterwards_is_refused(database: Database) -> None:
    await run(database.admin_url, "UPDATE schema_migrations SET checksum = '\\x00' WHERE number = 1")
    with pytest.raises(PostgresRefusedError, match="0001_pre_truth was applied from another text"):
        await migrate(database.admin_url)


@pytest.mark.parametrize("setting", ["synchronous_commit"])
async def test_a_postgres_that_could_lose_an_acknowledged_write_is_refused(database: Database, setting: str) -> None:
    name = database.admin_url.rsplit("/", 1)[1]
    await run(database.admin_url, f"ALTER DATABASE {name} SET {setting} = off")
    assert f"{setting} is off" in await refusal(database.url)


async def test_an_administrator_is_refused(database: Database) -> None:
    assert "passes row-level security" in await refusal(database.admin_url)


async def test_a_table_without_forced_security_is_refused(database: Database) -> None:
    await run(database.admin_url, "ALTER TABLE memory_vectors NO FORCE ROW LEVEL SECURITY")
    assert "not forced on memory_vectors" in await refusal(database.url)


async def test_rows_that_can_be_read_without_a_tenant_are_refused(database: Database) -> None:
    await run(
        database.admin_url,
        "CREATE POLICY too_open ON links USING (true)",
        "INSERT INTO links (tenant, source_id, target_id, relation, strength, version, created_at, updated_at)"
        " VALUES ('acme', gen_random_uuid(), gen_random_uuid(), 'related', 1, 1, now(), now())",
    )
    assert "without a tenant" in await refusal(database.url)


async def test_an_unreachable_postgres_is_told_apart_from_a_wrong_password(database: Database) -> None:
    nowhere = re.sub(r":\d+/", ":1/", database.url)
    with pytest.raises(ComponentUnavailableError):
        async with open_pools(nowhere):
            pass
    wrong = re.sub(r":[^:@/]+@", ":wrong@", database.url)
    assert "cannot log in" in await refusal(wrong)


async def test_every_table_of_tenants_is_protected_and_led_by_its_tenant(database: Database) -> None:
    connection = await asyncpg.connect(database.admin_url)
    try:
        keys = await connection.fetch(
            """
            SELECT c.relname AS name, a.attname AS first
            FROM pg_index i
            JOIN pg_class c ON c.oid = i.indrelid
            JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant'
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
            WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace
            """
        )
        open_tables = await connection.fetch(
            """
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND NOT c.relforcerowsecurity AND c.relname <> 'schema_migrations'
            """
        )
    finally:
        await connection.close()
    # Collections and the operator's tasks may be of all tenants; only the worker's role writes them.
    of_all = {"index_collections", "index_tasks"}
    assert {"tenant"} == {row["first"] for row in keys if row["name"] not in of_all}
    assert [] == [row["relname"] for row in open_tables]


async def test_requests_are_kept_in_daily_partitions_that_go_whole(database: Database) -> None:
    count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'idempotency'::regclass"
    connection = await asyncpg.connect(database.admin_url)
    try:
        before = await connection.fetchval(count)
        await connection.execute("SET ROLE soma_worker")
        assert 0 == await connection.fetchval("SELECT soma_roll_idempotency(38)")
        dropped = await connection.fetchval("SELECT soma_roll_idempotency(0)")
        await connection.execute("RESET ROLE")
        after = await connection.fetchval(count)
    finally:
        await connection.close()
    assert (18, 8, 10) == (before, dropped, after)


@pytest.mark.parametrize("name", [name for name, _ in sql.migrations()])
def test_a_migration_says_what_it_is_for_and_who_may_go_on(name: str) -> None:
    text = dict(sql.migrations())[name]
    assert re.match(r"-- [A-Z].*\n(-- .*\n)*-- oldest server: \d+\n", text)
    assert name.split("_")[1] in ("pre", "post")

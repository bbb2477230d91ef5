"""Row-level security: what holds even when a query forgets the tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncpg
import pytest

from memory_server.stores.fingerprints import term_keys
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import TruthInPostgres, remember, stored, vectors

pytestmark = pytest.mark.stores

TABLES = (
    "memory_items",
    "memory_versions",
    "memory_vectors",
    "changelog",
    "tenant_revisions",
    "idempotency",
    "index_jobs",
    "term_changes",
    "term_stats",
    "corpus_stats",
    "embedding_profiles",
)


async def fill(truth: TruthInPostgres, tenant: Tenant) -> None:
    """Leave something of the tenant in every table."""
    await stored(truth, tenant, remember("green tea", key="k", request_id="r-1"))
    jobs = await truth.queue.claim(limit=500, lease_s=60)
    await truth.queue.put_vectors("p", [(job, vectors()) for job in jobs if job.memory is not None])
    await truth.queue.active_collection(tenant, "p", 8)
    await stored(truth, tenant, remember("green tea", key="k", importance=0.5))


async def seen(connection: asyncpg.Connection, table: str) -> set[str]:
    return {row["tenant"] for row in await connection.fetch(f"SELECT DISTINCT tenant FROM {table}")}


async def test_a_query_that_forgets_the_tenant_sees_one_tenant(
    truth_in_postgres: TruthInPostgres, tenant: Tenant, stranger: Tenant
) -> None:
    await truth_in_postgres.admin.execute("DELETE FROM index_jobs")
    for one in (tenant, stranger):
        await fill(truth_in_postgres, one)
    await truth_in_postgres.count_terms()
    for one in (tenant, stranger):
        await stored(truth_in_postgres, one, remember("not counted yet"))
    for table in TABLES:
        # The negative control: both are there, for whoever may pass row-level security.
        both = await seen(truth_in_postgres.admin, table)
        assert (table, {tenant.name, stranger.name}) == (table, both & {tenant.name, stranger.name})
        async with truth_in_postgres.pools.interactive.tenant(tenant) as connection:
            assert {tenant.name} == await seen(connection, table)


async def test_a_session_that_once_had_a_tenant_sees_nothing_without_one(
    truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    await fill(truth_in_postgres, tenant)
    async with truth_in_postgres.pools.health.tenant(tenant) as connection:
        assert {tenant.name} == await seen(connection, "memory_items")
    pool = truth_in_postgres.pools.health.pool
    async with pool.acquire() as connection:
        assert "" == await connection.fetchval("SELECT current_setting('app.tenant', true)")
        for table in TABLES:
            assert set() == await seen(connection, table)


async def test_a_statement_that_names_its_tenant_sees_that_one_and_leaves_none_behind(
    truth_in_postgres: TruthInPostgres, tenant: Tenant, stranger: Tenant
) -> None:
    for one in (tenant, stranger):
        await fill(truth_in_postgres, one)
    health = truth_in_postgres.pools.health
    seeing = (
        "WITH gate AS MATERIALIZED (SELECT set_config('app.tenant', $1, true) AS tenant)"
        " SELECT DISTINCT seen.tenant FROM gate CROSS JOIN LATERAL"
        " (SELECT i.tenant FROM memory_items i WHERE {} OFFSET 0) AS seen"
    )

    def asking(condition: str, *values: str) -> Callable[[], tuple[str, Sequence[object]]]:
        return lambda: (seeing.format(condition), [tenant.name, *values])

    assert [tenant.name] == [row["tenant"] for row in await health.read(asking("i.tenant = gate.tenant"))]
    # A condition that forgets the tenant shows nothing of another, nor does one that asks for another's rows.
    assert {tenant.name} >= {row["tenant"] for row in await health.read(asking("gate.tenant <> ''"))}
    assert [] == await health.read(asking("i.tenant = $2 AND gate.tenant <> ''", stranger.name))
    async with health.pool.acquire() as connection:
        assert "" == await connection.fetchval("SELECT current_setting('app.tenant', true)")
        assert set() == await seen(connection, "memory_items")


async def test_a_row_cannot_be_written_for_another_tenant(
    truth_in_postgres: TruthInPostgres, tenant: Tenant, stranger: Tenant
) -> None:
    await fill(truth_in_postgres, tenant)
    for statement in (
        f"INSERT INTO tenant_revisions (tenant, revision) VALUES ('{stranger.name}', 1)",
        f"UPDATE memory_items SET tenant = '{stranger.name}'",
        f"UPDATE index_jobs SET tenant = '{stranger.name}'",
    ):
        connection = await truth_in_postgres.pools.health.pool.acquire()
        try:
            async with connection.transaction():
                await connection.execute(f"SELECT set_config('app.tenant', '{tenant.name}', true)")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        except asyncpg.InFailedSQLTransactionError:
            pass
        finally:
            await truth_in_postgres.pools.health.pool.release(connection)


async def test_no_row_belongs_to_nobody(truth_in_postgres: TruthInPostgres) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await truth_in_postgres.admin.execute("INSERT INTO tenant_revisions (tenant, revision) VALUES ('', 1)")


async def test_credentials_and_tenants_are_hidden_from_tenants(
    truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    for table in ("api_keys", "tenants"):
        connection = await truth_in_postgres.pools.health.pool.acquire()
        try:
            await connection.execute("BEGIN")
            await connection.execute(f"SELECT set_config('app.tenant', '{tenant.name}', true)")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {table}")
        finally:
            await connection.execute("ROLLBACK")
            await truth_in_postgres.pools.health.pool.release(connection)


async def test_the_term_index_is_bound_to_the_tenant_too(
    truth_in_postgres: TruthInPostgres, tenant: Tenant, stranger: Tenant
) -> None:
    for one in (tenant, stranger):
        await fill(truth_in_postgres, one)
    keys = [*term_keys(tenant.name, ["tea"]), *term_keys(stranger.name, ["tea"])]
    query = "SELECT DISTINCT tenant FROM soma_rows_with_terms($1)"
    async with truth_in_postgres.pools.interactive.tenant(tenant) as connection:
        assert [tenant.name] == [row["tenant"] for row in await connection.fetch(query, keys)]
    async with truth_in_postgres.pools.interactive.pool.acquire() as connection:
        assert [] == await connection.fetch(query, keys)


async def test_unique_keys_tell_nothing_about_other_tenants(
    truth_in_postgres: TruthInPostgres, tenant: Tenant, stranger: Tenant
) -> None:
    (mine,) = await stored(truth_in_postgres, tenant, remember("tea", key="k", request_id="r"))
    (theirs,) = await stored(truth_in_postgres, stranger, remember("tea", key="k", request_id="r"))
    assert (mine.memory_id, 1) == (theirs.memory_id, theirs.version)

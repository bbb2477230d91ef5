"""What housekeeping deletes, and what it leaves alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from memory_server.stores.postgres.housekeeping import PostgresHousekeeping
from memory_server.stores.postgres.journal import PostgresJournal
from soma_contract.ids import new_memory_id
from soma_contract.memory import Forget, Target
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import TruthInPostgres, remember, stored, written

pytestmark = pytest.mark.stores


@pytest.fixture
def housekeeping(truth_in_postgres: TruthInPostgres) -> PostgresHousekeeping:
    assert isinstance(truth_in_postgres.journal, PostgresJournal)
    return PostgresHousekeeping(truth_in_postgres.pools, truth_in_postgres.journal)


async def age(truth: TruthInPostgres, table: str, column: str, tenant: Tenant, days: int) -> None:
    await truth.admin.execute(
        f"UPDATE {table} SET {column} = {column} - $1::interval WHERE tenant = $2", timedelta(days=days), tenant.name
    )


async def count(truth: TruthInPostgres, table: str, tenant: Tenant) -> int:
    return int(await truth.admin.fetchval(f"SELECT count(*) FROM {table} WHERE tenant = $1", tenant.name))


async def test_an_expired_memory_is_forgotten_like_any_other(
    truth_in_postgres: TruthInPostgres, housekeeping: PostgresHousekeeping, tenant: Tenant
) -> None:
    (short, _) = await stored(
        truth_in_postgres, tenant, remember("short", key="k", ttl_s=60.0), remember("long", ttl_s=3_600.0)
    )
    await truth_in_postgres.pass_time(61)
    assert await housekeeping.sweep() >= 1
    assert 0 == await housekeeping.sweep()
    row = await truth_in_postgres.admin.fetchrow(
        "SELECT deleted, text, version FROM memory_items WHERE tenant = $1 AND memory_id = $2",
        tenant.name,
        short.memory_id,
    )
    assert (True, "", 2) == tuple(row)
    assert 3 == await truth_in_postgres.journal.revision(tenant)
    ops = await truth_in_postgres.admin.fetch(
        "SELECT op, version FROM changelog WHERE tenant = $1 AND memory_id = $2 ORDER BY revision",
        tenant.name,
        short.memory_id,
    )
    assert [("put", 1), ("forget", 2)] == [tuple(op) for op in ops]


async def test_a_memory_that_was_extended_is_not_swept(truth_in_postgres: TruthInPostgres, tenant: Tenant) -> None:
    (memory,) = await stored(truth_in_postgres, tenant, remember("kept", ttl_s=60.0))
    journal = truth_in_postgres.journal
    assert isinstance(journal, PostgresJournal)
    assert 0 == await journal.sweep(tenant, [memory.memory_id])
    (found,) = await journal.get(tenant, [Target(memory_id=memory.memory_id)])
    assert memory == found


async def test_old_answers_changes_and_tombstones_go_and_new_ones_stay(
    truth_in_postgres: TruthInPostgres, housekeeping: PostgresHousekeeping, tenant: Tenant, stranger: Tenant
) -> None:
    for one in (tenant, stranger):
        await stored(truth_in_postgres, one, remember("tea", key="k", request_id="by-name"))
        await truth_in_postgres.journal.write(one, [Forget(Target(key="k"))])
        await truth_in_postgres.admin.execute("DELETE FROM index_jobs WHERE tenant = $1", one.name)
        await stored(truth_in_postgres, one, remember("cake", key="l"))
    for table, column in (("idempotency", "recorded_at"), ("memory_items", "updated_at"), ("changelog", "at")):
        await age(truth_in_postgres, table, column, tenant, 31)
    await housekeeping.purge()
    tables = ("idempotency", "memory_items", "changelog")
    assert [0, 1, 0] == [await count(truth_in_postgres, table, tenant) for table in tables]
    assert [1, 2, 3] == [await count(truth_in_postgres, table, stranger) for table in tables]
    compacted = "SELECT compacted FROM tenant_revisions WHERE tenant = $1"
    assert (3, 0) == (
        await truth_in_postgres.admin.fetchval(compacted, tenant.name),
        await truth_in_postgres.admin.fetchval(compacted, stranger.name),
    )
    (again,) = await truth_in_postgres.journal.write(tenant, [remember("pie", key="m")])
    assert 4 == written(again).revision


async def test_a_tombstone_stays_while_the_index_may_hold_the_memory(
    truth_in_postgres: TruthInPostgres, housekeeping: PostgresHousekeeping, tenant: Tenant
) -> None:
    await stored(truth_in_postgres, tenant, remember("tea", key="k"))
    await truth_in_postgres.journal.write(tenant, [Forget(Target(key="k"))])
    await age(truth_in_postgres, "memory_items", "updated_at", tenant, 31)
    await housekeeping.purge()
    assert 1 == await count(truth_in_postgres, "memory_items", tenant)


async def test_a_days_requests_are_kept_in_their_day(truth_in_postgres: TruthInPostgres, tenant: Tenant) -> None:
    await stored(
        truth_in_postgres, tenant, remember("a", request_id=new_memory_id()), remember("b", request_id="by-name")
    )
    places = await truth_in_postgres.admin.fetch(
        "SELECT request_id, tableoid::regclass::text AS place, day FROM idempotency WHERE tenant = $1", tenant.name
    )
    by_name = {row["request_id"]: (row["place"], row["day"]) for row in places}
    assert "idempotency_rest" == by_name.pop("by-name")[0]
    ((place, day),) = by_name.values()
    assert f"idempotency_{day:%Y%m%d}" == place

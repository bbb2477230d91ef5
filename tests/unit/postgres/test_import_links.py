"""Imports of links alone, on connections that have imported nothing yet."""

from __future__ import annotations

import pytest

from memory_server.stores.analysing import analysis
from memory_server.stores.postgres.imports import PostgresImports
from memory_server.stores.postgres.pools import PoolSizes, open_pools
from soma_contract.links import Link
from soma_contract.records import ImportOptions
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import Database, TruthInPostgres, remember, stored

pytestmark = pytest.mark.stores


async def test_a_commit_of_links_alone_is_stored_by_a_connection_that_copied_nothing(
    truth_database: Database, truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    one, other = await stored(truth_in_postgres, tenant, remember("one end"), remember("the other"))
    async with open_pools(truth_database.url, PoolSizes(1, 1, 1, 1)) as pools:
        imports = PostgresImports(pools, analysis(), "test-profile")
        job = await imports.create(tenant, ImportOptions())
        leased = await imports.lease(tenant, job.import_id)
        assert leased is not None
        link = Link(one.memory_id, other.memory_id, "imported", 0.5)
        committed = await imports.commit(tenant, leased[1], 0, [imports.prepare(link)])
    assert (1, 0, ()) == (committed.job.stored, committed.job.refused, committed.refused)

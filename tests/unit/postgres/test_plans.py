"""How much of a big tenant a statement reads: what the planner makes of it, as the pools' sessions plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from memory_server.stores.postgres import sql
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import TruthInPostgres, remember, stored

pytestmark = pytest.mark.stores

ACTORS = 5
ROWS = 400


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A plan's nodes."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def rows_read(truth: TruthInPostgres, tenant: Tenant, statement: str, *values: object) -> int:
    """How many rows a statement takes out of tables, filtered away or not."""
    async with truth.pools.interactive.tenant(tenant) as connection:
        told = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
    plan = json.loads(told)[0]["Plan"]
    return int(
        sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in nodes(plan)
            if "Relation Name" in node
        )
    )


async def test_the_actors_of_a_namespace_cost_a_probe_each_however_many_rows_there_are(
    truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    await stored(
        truth_in_postgres, tenant, *(remember(f"thing {number}", actor=f"a{number % ACTORS}") for number in range(ROWS))
    )
    names = sql.query("actor_names")
    assert await rows_read(truth_in_postgres, tenant, names, tenant.name, "default", 256) <= 2 * ACTORS
    # The negative control: asked without what the partial index says of its rows, each probe reads on.
    blind = names.replace(" AND m.actor > '' AND NOT m.deleted", " AND NOT m.deleted", 2).replace(
        "m.actor > ''", "true"
    )
    assert await rows_read(truth_in_postgres, tenant, blind, tenant.name, "default", 256) > ROWS

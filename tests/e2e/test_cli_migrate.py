"""`soma migrate` brings a database to this version's schema, once."""

from __future__ import annotations

import pytest

from memory_server.stores.postgres import sql
from tests.e2e.console import Console
from tests.support.stores import FreshDatabase

pytestmark = [pytest.mark.stores, pytest.mark.processes]


async def test_a_database_is_migrated_once(fresh_database: FreshDatabase) -> None:
    console = Console({"SOMA_POSTGRES_ADMIN_URL": fresh_database.admin_url})

    first = await console.soma("migrate")
    again = await console.soma("migrate")

    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert len(first.out.splitlines()) == len(sql.migrations())
    assert all(line.startswith("applied  0") for line in first.out.splitlines())
    assert again.out == "nothing to do\n"


async def test_a_database_that_is_not_there_ends_with_3() -> None:
    console = Console({"SOMA_POSTGRES_ADMIN_URL": "postgresql://nobody@127.0.0.1:1/none"})

    lost = await console.soma("migrate")

    assert (lost.code, lost.out) == (3, "")
    assert "Postgres cannot be migrated" in lost.err

"""A Postgres that falls silent in the middle of a transaction costs its caller the deadline, and no rollback on top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from memory_server.stores.postgres import transactions
from memory_server.stores.postgres.pools import PoolSizes, open_pools
from memory_server.stores.postgres.transactions import Transactions
from soma_contract.errors import BudgetSpentError
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import Database
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.stores

DEADLINE_S = 0.2


@pytest.fixture
def rollbacks(monkeypatch: pytest.MonkeyPatch) -> list[asyncpg.Connection]:
    """Every connection on which a rollback is waited for."""
    seen: list[asyncpg.Connection] = []
    real = transactions._roll_back

    async def noted(connection: asyncpg.Connection) -> None:
        seen.append(connection)
        await real(connection)

    monkeypatch.setattr(transactions, "_roll_back", noted)
    return seen


@pytest_asyncio.fixture(loop_scope="session")
async def proxied(truth_database: Database) -> AsyncIterator[tuple[FaultProxy, Transactions]]:
    """Calls' transactions through a network that can fail."""
    url = truth_database.url
    async with FaultProxy.before(url) as proxy, open_pools(proxy.url(url), PoolSizes(interactive=1)) as pools:
        yield proxy, pools.interactive
        proxy.fault = Fault.PASS


async def test_no_rollback_is_waited_for_on_a_store_that_did_not_keep_its_own_limit(
    proxied: tuple[FaultProxy, Transactions], tenant: Tenant, rollbacks: list[asyncpg.Connection]
) -> None:
    proxy, calls = proxied

    async def call() -> None:
        async with calls.tenant(tenant, deadline_s=DEADLINE_S) as connection:
            proxy.fault = Fault.BLACK_HOLE
            await connection.fetchval("SELECT 1")

    with pytest.raises(BudgetSpentError):
        await call()
    assert rollbacks == []
    proxy.fault = Fault.PASS
    async with calls.tenant(tenant, deadline_s=5.0) as after:
        assert await after.fetchval("SELECT 1") == 1


async def test_a_caller_who_hangs_up_leaves_the_connection_to_others(
    proxied: tuple[FaultProxy, Transactions], tenant: Tenant, rollbacks: list[asyncpg.Connection]
) -> None:
    _, calls = proxied
    begun = asyncio.Event()
    used: list[int] = []

    async def call() -> None:
        async with calls.tenant(tenant, deadline_s=5.0) as connection:
            used.append(await connection.fetchval("SELECT pg_backend_pid()"))
            begun.set()
            await asyncio.Event().wait()

    calling = asyncio.create_task(call())
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert len(rollbacks) == 1
    async with calls.tenant(tenant, deadline_s=5.0) as connection:
        assert [await connection.fetchval("SELECT pg_backend_pid()")] == used


async def test_a_read_on_a_silent_store_ends_with_its_time(
    proxied: tuple[FaultProxy, Transactions], tenant: Tenant
) -> None:
    proxy, calls = proxied
    hurried = Transactions(calls.pool, default_deadline_s=DEADLINE_S)
    await hurried.read(lambda: ("SELECT 1", ()))
    proxy.fault = Fault.BLACK_HOLE
    with pytest.raises(BudgetSpentError):
        await hurried.read(lambda: ("SELECT 1", ()))

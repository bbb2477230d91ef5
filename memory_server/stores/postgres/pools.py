"""Connections by purpose, so that imports and indexing never take the ones that calls need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from memory_server.stores.postgres.checks import check_postgres
from memory_server.stores.postgres.errors import COMPONENT, PostgresRefusedError, translated
from memory_server.stores.postgres.row_cache import DEFAULT_CAPACITY, RowCache
from memory_server.stores.postgres.transactions import Transactions
from soma_contract.errors import ComponentUnavailableError

# For every session; transactions tighten the statement timeout to what is left of the call's deadline.
_SESSION = {
    "search_path": "public",
    "timezone": "UTC",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    # A session that sets another value would acknowledge what a crash can lose.
    "synchronous_commit": "on",
    # Statements are planned once a session, often while the tables are empty, and must still be right at a million
    # rows. Every one of them is meant to walk indexes from few rows to few rows, so the planner may do nothing else.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_memoize": "off",
    "random_page_cost": "1.1",
    "jit": "off",
    # Keyword search holds its candidates, some thousand rows, in memory for the time of a sort.
    "work_mem": "16MB",
    "max_parallel_workers_per_gather": "0",
}
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """How many connections each purpose may hold."""

    interactive: int = 12
    indexing: int = 3
    bulk: int = 3
    health: int = 1


@dataclass(frozen=True, slots=True)
class Pools:
    """Transactions by purpose: calls of agents, the indexer, imports and exports, health probes."""

    interactive: Transactions
    indexing: Transactions
    bulk: Transactions
    health: Transactions
    rows: RowCache = field(default_factory=RowCache)
    """What recall read lately, as of this Postgres."""

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError; takes no connection from the calls."""
        async with self.health.worker(deadline_s=2.0) as connection:
            await connection.fetchval("SELECT 1")


@asynccontextmanager
async def open_pools(
    url: str, sizes: PoolSizes | None = None, *, rows_kept_bytes: int = DEFAULT_CAPACITY
) -> AsyncIterator[Pools]:
    """Connect as the application role, check that this Postgres can be trusted, and open the pools.

    Raises PostgresRefusedError for a Postgres, schema or role that breaks a guarantee, and
    ComponentUnavailableError when there is none.
    """
    sizes = sizes or PoolSizes()
    await _check(url)
    rows = RowCache(rows_kept_bytes)

    async def connected(_: asyncpg.Connection) -> None:
        # It may lead to another server than the one whose tuples were read, as after a failover.
        rows.clear()

    async with AsyncExitStack() as stack:
        yield Pools(
            interactive=await _pool(stack, url, "interactive", sizes.interactive, 30_000, connected),
            indexing=await _pool(stack, url, "indexing", sizes.indexing, 60_000),
            bulk=await _pool(stack, url, "bulk", sizes.bulk, 120_000),
            health=await _pool(stack, url, "health", sizes.health, 2_000),
            rows=rows,
        )


async def _check(url: str) -> None:
    with translated("connect"):
        try:
            connection: asyncpg.Connection = await asyncpg.connect(
                url, timeout=_CONNECT_S, server_settings={"search_path": "public"}
            )
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise PostgresRefusedError(
                f"cannot log in to Postgres ({type(error).__name__}); check user, password and database of the address"
            ) from error
        except TimeoutError as error:
            raise ComponentUnavailableError(component=COMPONENT) from error
        try:
            await check_postgres(connection)
        finally:
            await connection.close()


async def _pool(
    stack: AsyncExitStack,
    url: str,
    purpose: str,
    size: int,
    statement_ms: int,
    connected: Callable[[asyncpg.Connection], Awaitable[None]] | None = None,
) -> Transactions:
    pool: asyncpg.Pool = asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=_CONNECT_S,
        max_inactive_connection_lifetime=300.0,
        max_queries=1_000_000,
        statement_cache_size=512,
        max_cached_statement_lifetime=0,
        server_settings=_SESSION | {"application_name": f"soma {purpose}", "statement_timeout": f"{statement_ms}ms"},
        reset=_nothing,
        init=connected,
    )
    stack.push_async_callback(_close, pool)
    with translated("connect"):
        await pool
    return Transactions(pool, default_deadline_s=statement_ms / 1000)


async def _nothing(_: asyncpg.Connection) -> None:
    """All settings of ours are local to a transaction: there is nothing to reset, and no trip to pay for it."""


async def _close(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(5.0):
            await pool.close()
    except TimeoutError:
        pool.terminate()

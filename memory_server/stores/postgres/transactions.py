"""The one way to a connection: a transaction that can see one tenant, or says that it acts as the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from memory_server.stores.postgres.errors import COMPONENT, translated
from memory_server.stores.postgres.migrate import WORKER_ROLE
from rpckit.failpoints import failpoint
from rpckit.telemetry.tracing import store_span
from soma_contract.errors import BudgetSpentError, ComponentUnavailableError
from soma_contract.tenant import Tenant

_RELEASE_S = 0.1
# The server gives up first, so that a connection is not thrown away for a query that was merely slow.
_GRACE_S = 0.1


@dataclass(frozen=True, slots=True)
class Transactions:
    """Opens transactions on one pool."""

    pool: asyncpg.Pool
    default_deadline_s: float = 30.0

    @asynccontextmanager
    async def tenant(
        self, tenant: Tenant, *, deadline_s: float | None = None, lock_s: float | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction that sees this tenant's rows and commits at the end.

        ``deadline_s`` bounds every statement, ``lock_s`` every wait for a row; both in seconds.  Raises
        ComponentUnavailableError, BudgetSpentError or WriteConflictError instead of the driver's errors.
        """
        # Tenant names consist of [a-z0-9._-], so the literal needs no quoting; one string is one trip.
        settings = [f"set_config('app.tenant','{tenant.name}',true)"]
        async with self._transaction("BEGIN;SELECT ", settings, deadline_s, lock_s) as connection:
            yield connection

    async def read(self, written: Callable[[], tuple[str, Sequence[object]]]) -> list[asyncpg.Record]:
        """Run one statement that names its tenant itself, as pool.sql does, and so needs no transaction around it.

        ``written`` is asked for the statement and its values when there is a connection.  Raises as `tenant` does.
        """
        budget_s = self.default_deadline_s
        with translated(COMPONENT), store_span("postgresql", "read"):
            async with asyncio.timeout(budget_s + _GRACE_S) as whole:
                connection = await self._acquire(budget_s)
                try:
                    statement, values = written()
                    rows: list[asyncpg.Record] = await connection.fetch(statement, *values)
                    return rows
                except asyncio.CancelledError:
                    if whole.expired():
                        connection.terminate()
                    raise
                finally:
                    await self.pool.release(connection, timeout=_RELEASE_S)

    @asynccontextmanager
    async def worker(
        self, *, deadline_s: float | None = None, lock_s: float | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction of the pipeline, the registry or housekeeping, which knows no single tenant."""
        opening = f"BEGIN;SET LOCAL ROLE {WORKER_ROLE};SELECT "
        async with self._transaction(opening, [], deadline_s, lock_s) as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self, tenant: Tenant, *, deadline_s: float, idle_s: float) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction that reads this tenant's rows as of one moment and writes none.

        ``idle_s`` is how long the caller may pause between statements before the store lets go of the moment.
        """
        settings = [
            f"set_config('app.tenant','{tenant.name}',true)",
            f"set_config('idle_in_transaction_session_timeout','{int(idle_s * 1000)}',true)",
        ]
        opening = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;SELECT "
        async with self._transaction(opening, settings, deadline_s, None) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(
        self, opening: str, settings: list[str], deadline_s: float | None, lock_s: float | None
    ) -> AsyncIterator[asyncpg.Connection]:
        budget_s = self.default_deadline_s if deadline_s is None else deadline_s
        if budget_s <= 0:
            raise BudgetSpentError(stage=COMPONENT)
        if deadline_s is not None:
            settings.append(f"set_config('statement_timeout','{max(1, int(deadline_s * 1000))}',true)")
        if lock_s is not None:
            settings.append(f"set_config('lock_timeout','{max(1, int(lock_s * 1000))}',true)")
        with translated(COMPONENT), store_span("postgresql", "transaction"):
            async with asyncio.timeout(budget_s + _GRACE_S) as whole:
                connection = await self._acquire(budget_s)
                try:
                    await connection.execute(opening + (",".join(settings) or "1"))
                    yield connection
                    failpoint("postgres.written")
                    await connection.execute("COMMIT")
                    failpoint("postgres.committed")
                except BaseException:
                    if whole.expired():
                        # The server's own limit has passed unheard: it would not hear a rollback either.
                        connection.terminate()
                    else:
                        await _roll_back(connection)
                    raise
                finally:
                    await self.pool.release(connection, timeout=_RELEASE_S)

    async def _acquire(self, budget_s: float) -> asyncpg.Connection:
        try:
            # Not the pool's own timeout, which makes a task of every wait.
            async with asyncio.timeout(budget_s):
                return await self.pool.acquire()
        except TimeoutError as error:
            # Waiting for a connection all that time says that the store is stuck, not that the caller hurried.
            raise ComponentUnavailableError(component=COMPONENT) from error


async def _roll_back(connection: asyncpg.Connection) -> None:
    """End a failed transaction; a connection that does not answer at once is thrown away."""
    try:
        async with asyncio.timeout(_RELEASE_S):
            await connection.execute("ROLLBACK")
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()

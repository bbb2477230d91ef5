"""What a Postgres must be before a server trusts it with the truth."""

from __future__ import annotations

import asyncpg

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.errors import PostgresRefusedError
from memory_server.stores.postgres.migrate import WORKER_ROLE, schema_version

OLDEST_POSTGRES = 15


async def check_postgres(connection: asyncpg.Connection) -> None:
    """Raise PostgresRefusedError unless durability, schema and role are what the guarantees need."""
    _check_version(connection)
    await _check_durability(connection)
    await _check_schema(connection)
    await _check_role(connection)


def _check_version(connection: asyncpg.Connection) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_POSTGRES:
        raise PostgresRefusedError(f"Postgres {version.major} is too old; Soma needs {OLDEST_POSTGRES} or newer")


async def _check_durability(connection: asyncpg.Connection) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if await connection.fetchval("SELECT current_setting($1)", setting) == "off":
            raise PostgresRefusedError(
                f"{setting} is off: an acknowledged memory could be lost; switch it on in postgresql.conf"
            )


async def _check_schema(connection: asyncpg.Connection) -> None:
    if await connection.fetchval("SELECT to_regclass('public.schema_migrations')") is None:
        raise PostgresRefusedError("the database has no Soma schema; run: soma migrate")
    rows = [row for row in await connection.fetch(sql.query("applied_migrations")) if row["number"] > 0]
    applied = {row["name"] for row in rows}
    needed = {name for name, _ in sql.migrations() if name.split("_")[1] == "pre"}
    if missing := sorted(needed - applied):
        raise PostgresRefusedError(f"the schema is older than this server: {missing[0]} is missing; run: soma migrate")
    ours = schema_version()
    oldest = max((row["oldest_server"] for row in rows), default=0)
    if oldest > ours:
        raise PostgresRefusedError(
            f"the schema is newer than this server: it needs version {oldest}, this is {ours}; use a newer Soma"
        )


async def _check_role(connection: asyncpg.Connection) -> None:
    role = await connection.fetchrow(sql.query("check_role"), WORKER_ROLE)
    if role["superuser"] or role["bypasses"]:
        raise PostgresRefusedError(
            f"the role {role['name']} passes row-level security; use the application role, not an administrator"
        )
    if role["owns"]:
        raise PostgresRefusedError(f"the role {role['name']} owns tables; use the application role, not the owner")
    if role["inherits_worker"]:
        raise PostgresRefusedError(f"the role {role['name']} inherits {WORKER_ROLE}; run: soma migrate")
    if not role["may_work"]:
        raise PostgresRefusedError(f"the role {role['name']} is not prepared for Soma; run: soma migrate")
    if role["unprotected"]:
        raise PostgresRefusedError(
            f"row-level security is not forced on {', '.join(role['unprotected'])}; run: soma migrate"
        )
    if await connection.fetchval(sql.query("any_row_without_tenant")):
        raise PostgresRefusedError("rows can be read without a tenant: row-level security does not hold here")

"""Bringing a database to this version's schema.

Migrations are numbered files of two phases: ``pre`` adds what new servers need and old ones ignore, ``post``
takes away what only old ones needed.  They run as the owner role, which cannot log in; the servers log in as
the application role, which owns nothing and cannot pass row-level security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from typing import Literal

import asyncpg

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.errors import PostgresRefusedError

OWNER_ROLE = "soma_schema"
WORKER_ROLE = "soma_worker"
APPLICATION_ROLE = "soma_app"
KEEP_REQUESTS_DAYS = 30

Phase = Literal["pre", "post"]

_LOCK = int.from_bytes(hashlib.blake2b(b"soma schema", digest_size=8).digest(), "big", signed=True)
_OLDEST = re.compile(r"^-- oldest server: (\d+)$", re.MULTILINE)


def schema_version() -> int:
    """The schema version this code was written for: the number of its last migration."""
    return max(int(name[:4]) for name, _ in sql.migrations())


async def migrate(
    admin_url: str,
    *,
    application: str = APPLICATION_ROLE,
    password: str | None = None,
    phases: Sequence[Phase] = ("pre", "post"),
) -> list[str]:
    """Apply the missing migrations and return their names.

    ``admin_url`` logs in a superuser, or a role with CREATEROLE that owns the database.  The application
    role is made when it is missing; its password is set only when one is given.  Safe to run at any time
    and by several processes at once.  Raises PostgresRefusedError for a database that is too new.
    """
    connection: asyncpg.Connection = await asyncpg.connect(admin_url, server_settings={"search_path": "public"})
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await _make_roles(connection, application, password)
        return await _apply(connection, application, phases)
    finally:
        await connection.close()


async def _make_roles(connection: asyncpg.Connection, application: str, password: str | None) -> None:
    await _make_role(connection, OWNER_ROLE, "NOLOGIN")
    await _make_role(connection, WORKER_ROLE, "NOLOGIN NOINHERIT")
    await _make_role(connection, application, "LOGIN NOINHERIT")
    quoted = _quoted(application)
    # Roles belong to the cluster: databases migrated at the same moment may meet on these rows.
    await _retried(connection, f"ALTER ROLE {quoted} NOINHERIT NOBYPASSRLS NOCREATEROLE NOCREATEDB")
    if password is not None:
        await _retried(connection, f"ALTER ROLE {quoted} PASSWORD '{_verifier(password)}'")
    if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'MEMBER')", OWNER_ROLE):
        await _retried(connection, f"GRANT {OWNER_ROLE} TO CURRENT_USER")
    # The application may act as the worker only by saying so: its policies see all tenants.
    if connection.get_server_version().major >= 16:
        await _retried(connection, f"GRANT {WORKER_ROLE} TO {quoted} WITH INHERIT FALSE, SET TRUE")
    else:
        await _retried(connection, f"GRANT {WORKER_ROLE} TO {quoted}")
    await connection.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {OWNER_ROLE}")
    await connection.execute(f"GRANT USAGE ON SCHEMA public TO {quoted}, {WORKER_ROLE}")


async def _make_role(connection: asyncpg.Connection, name: str, options: str) -> None:
    if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
        return
    try:
        await connection.execute(f"CREATE ROLE {_quoted(name)} {options}")
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return


async def _retried(connection: asyncpg.Connection, statement: str) -> None:
    for _ in range(20):
        try:
            await connection.execute(statement)
        except (asyncpg.InternalServerError, asyncpg.UniqueViolationError):
            # "tuple concurrently updated": another database's migration changed the same role.
            continue
        return
    await connection.execute(statement)


async def _apply(connection: asyncpg.Connection, application: str, phases: Sequence[Phase]) -> list[str]:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {OWNER_ROLE}")
        await connection.execute(sql.query("make_schema_table"))
    applied = {row["name"]: row["checksum"] for row in await connection.fetch(sql.query("applied_migrations"))}
    _check_known(applied)
    done = []
    for name, text in sql.migrations():
        phase = name.split("_")[1]
        if name in applied or phase not in phases:
            continue
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {OWNER_ROLE}")
            await connection.execute(text)
            await _record(connection, name, phase, text)
        done.append(name)
    await _grant(connection, application, applied, changed=bool(done))
    return done


async def _grant(connection: asyncpg.Connection, application: str, applied: dict[str, bytes], *, changed: bool) -> None:
    script = sql.grants().replace("{application}", _quoted(application)).replace("{worker}", WORKER_ROLE)
    name = f"grants to {application}"
    # Policies are replaced under an exclusive lock, so only when there is something new.
    if not changed and applied.get(name) == _checksum(script):
        return
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {OWNER_ROLE}")
        await connection.execute(script)
        await connection.execute("SELECT soma_roll_idempotency($1)", KEEP_REQUESTS_DAYS + 8)
        await _record(connection, name, "grants", script)


async def _record(connection: asyncpg.Connection, name: str, phase: str, text: str) -> None:
    oldest = _OLDEST.search(text)
    await connection.execute(
        sql.query("record_migration"),
        name,
        phase,
        int(name[:4]) if name[:4].isdigit() else 0,
        int(oldest[1]) if oldest else 0,
        _checksum(text),
    )


def _check_known(applied: dict[str, bytes]) -> None:
    known = dict(sql.migrations())
    for name, checksum in applied.items():
        if not name[:4].isdigit():
            continue
        if name not in known:
            raise PostgresRefusedError(
                f"the database has migration {name}, which this version of Soma does not know; use a newer Soma"
            )
        if checksum != _checksum(known[name]):
            raise PostgresRefusedError(f"migration {name} was applied from another text; use the Soma that did it")


def _checksum(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _verifier(password: str) -> str:
    """The SCRAM-SHA-256 verifier of RFC 5802, so that no log of statements ever holds the password."""
    if not password.isascii():
        raise PostgresRefusedError("the application role's password must be ASCII")
    salt, rounds = os.urandom(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    client = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server = _hmac(salted, b"Server Key")
    salt_text, client_text, server_text = (base64.b64encode(part).decode() for part in (salt, client, server))
    return f"SCRAM-SHA-256${rounds}:{salt_text}${client_text}:{server_text}"


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")

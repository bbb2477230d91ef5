"""Tenants and API keys on Postgres; the worker's role reads them, since no tenant is known yet."""

from __future__ import annotations

import json
from dataclasses import dataclass

import asyncpg

from memory_server.ports import KeyRecord, TenantChange, TenantRecord
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.pools import Pools
from soma_contract.errors import TenantExistsError


@dataclass(frozen=True, slots=True)
class PostgresRegistry:
    """The registry; see :class:`memory_server.ports.Registry`."""

    pools: Pools

    async def create_tenant(
        self,
        name: str,
        display_name: str,
        *,
        dedicated: bool,
        settings: TenantChange | None = None,
        request_id: str = "",
    ) -> TenantRecord:
        """Create a tenant with some settings.  Raises TenantExistsError, unless the same request made it."""
        given = settings or TenantChange()
        async with self.pools.interactive.worker() as connection:
            row = await connection.fetchrow(
                sql.query("create_tenant"),
                name,
                display_name,
                dedicated,
                json.dumps(dict(given.labels or {})),
                given.scorer or "",
                json.dumps(dict(given.recall_weights or {})),
                request_id,
            )
        if row is None:
            raise TenantExistsError(tenant=name)
        return _tenant(row)

    async def change_tenant(self, name: str, change: TenantChange, if_match: int | None = None) -> TenantRecord | None:
        """Change a tenant; None when there is none, or another version of it than ``if_match``."""
        async with self.pools.interactive.worker() as connection:
            row = await connection.fetchrow(
                sql.query("change_tenant"),
                name,
                if_match,
                change.display_name,
                None if change.labels is None else json.dumps(dict(change.labels)),
                change.scorer,
                None if change.recall_weights is None else json.dumps(dict(change.recall_weights)),
                change.state,
                change.suspend_cause,
            )
        return _tenant(row) if row is not None else None

    async def get_tenant(self, name: str) -> TenantRecord | None:
        """Read a tenant."""
        async with self.pools.interactive.worker() as connection:
            row = await connection.fetchrow(sql.query("get_tenant"), name)
        return _tenant(row) if row is not None else None

    async def list_tenants(self, *, after: str, limit: int) -> list[TenantRecord]:
        """Read tenants in name order."""
        async with self.pools.interactive.worker() as connection:
            return [_tenant(row) for row in await connection.fetch(sql.query("list_tenants"), after, limit)]

    async def put_key(self, key: KeyRecord) -> None:
        """Add a key; one of the same id is replaced."""
        async with self.pools.interactive.worker() as connection:
            await connection.execute(
                sql.query("put_key"),
                key.key_id,
                list(key.tenants),
                list(key.scopes),
                key.label,
                key.secret_hash,
                key.created_at,
                key.expires_at,
                key.revoked_at,
            )

    async def get_key(self, key_id: str) -> KeyRecord | None:
        """Read a key by its id."""
        async with self.pools.interactive.worker() as connection:
            row = await connection.fetchrow(sql.query("get_key"), key_id)
        return _key(row) if row is not None else None

    async def list_keys(self, tenant_name: str, *, after: str, limit: int) -> list[KeyRecord]:
        """Read the keys of a tenant in the order of their ids."""
        async with self.pools.interactive.worker() as connection:
            rows = await connection.fetch(sql.query("list_keys"), tenant_name, after, limit)
        return [_key(row) for row in rows]

    async def revoke_key(self, key_id: str) -> KeyRecord | None:
        """Revoke a key now; a key that was revoked keeps its first moment.  None when there is none."""
        async with self.pools.interactive.worker() as connection:
            row = await connection.fetchrow(sql.query("revoke_key"), key_id)
        return _key(row) if row is not None else None


def _tenant(row: asyncpg.Record) -> TenantRecord:
    return TenantRecord(
        name=row["tenant"],
        state=row["state"],
        display_name=row["display_name"],
        created_at=row["created_at"],
        dedicated=row["dedicated"],
        labels=json.loads(row["labels"]),
        scorer=row["scorer"],
        recall_weights=json.loads(row["recall_weights"]),
        suspend_cause=row["suspend_cause"],
        updated_at=row["updated_at"],
        version=row["version"],
    )


def _key(row: asyncpg.Record) -> KeyRecord:
    return KeyRecord(
        key_id=row["key_id"],
        tenants=tuple(row["tenants"]),
        scopes=tuple(row["scopes"]),
        label=row["label"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        secret_hash=row["secret_hash"],
    )

"""Which index collection holds a tenant's memories, and in which epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import asyncpg

from memory_server.ports import Collection, CollectionLostError
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.transactions import Transactions
from soma_contract.errors import EmbeddingProfileMismatchError
from soma_contract.tenant import Tenant

REQUEUED_ROWS = 1_000
REQUEUED_TENANTS = 64


def collection_name(prefix: str, profile: str, tenant_name: str = "") -> str:
    """The name of a collection in the index: of a profile, or of one tenant in a profile."""
    parts = [prefix, _short(profile)]
    if tenant_name:
        parts.append(_short(tenant_name))
    return "_".join(parts)


def check_profile(
    tenant: Tenant, stored: str | None, stored_dimension: int | None, profile: str, dimension: int
) -> None:
    """Raise EmbeddingProfileMismatchError unless the tenant's memories are embedded with this profile."""
    if stored is None or (stored, stored_dimension) == (profile, dimension):
        return
    raise EmbeddingProfileMismatchError(
        stored=f"{stored} ({stored_dimension})", configured=f"{profile} ({dimension})", tenant=tenant.name
    )


@dataclass(frozen=True, slots=True)
class Collections:
    """The entries of index_collections."""

    transactions: Transactions
    prefix: str

    async def active(self, tenant: Tenant, profile: str, dimension: int) -> Collection:
        """Read a tenant's collection, making its entry if needed."""
        async with self.transactions.worker() as connection:
            row = await connection.fetchrow(sql.query("find_collection"), tenant.name, profile)
            check_profile(tenant, row["tenant_profile"], row["tenant_dimension"], profile, dimension)
            if row["tenant_profile"] is None:
                await connection.execute(sql.query("note_profile"), tenant.name, profile, dimension)
            if row["name"] is None:
                owner = tenant.name if row["dedicated"] else ""
                name = collection_name(self.prefix, profile, owner)
                await connection.execute(sql.query("make_collection"), name, profile, owner, dimension)
                row = await connection.fetchrow(sql.query("find_collection"), tenant.name, profile)
        collection = _collection(row)
        check_profile(tenant, profile, collection.dimension, profile, dimension)
        return collection

    async def all(self) -> list[Collection]:
        """Read all active collections."""
        async with self.transactions.worker() as connection:
            return [_collection(row) for row in await connection.fetch(sql.query("list_collections"))]

    async def still_in(self, connection: asyncpg.Connection, collection: Collection) -> bool:
        """Whether a collection that takes rows now was not lost; until the transaction ends it cannot be."""
        named = collection.name, collection.epoch
        if await connection.fetchval(sql.query("check_filled"), *named) is not None:
            return True
        return await connection.fetchval(sql.query("mark_filled"), *named) is not None

    async def new_epoch(self, collection: Collection) -> Collection:
        """Declare a collection lost; its rows are queued again bit by bit."""
        async with self.transactions.worker() as connection:
            row = await connection.fetchrow(sql.query("new_epoch"), collection.name, collection.epoch)
            if row is None:
                # A statement of its own: it has to see what the other's transaction wrote while this one waited.
                row = await connection.fetchrow(sql.query("get_collection"), collection.name)
        if row is None:
            # Another collection has taken its place: there is nothing to declare.
            raise CollectionLostError(collection.name)
        return _collection(row)

    async def requeue(self) -> int:
        """Queue some rows of a lost collection again and return how many; 0 when there are none."""
        async with self.transactions.worker() as connection:
            lost = await connection.fetchrow(sql.query("lost_collections"))
            if lost is None:
                return 0
            queued, start = 0, lost["requeue_from"]
            for _ in range(REQUEUED_TENANTS):
                tenant = await connection.fetchval(sql.query("next_tenant"), start, lost["profile"], lost["tenant"])
                if tenant is None:
                    start = None
                    break
                older = await connection.fetch(
                    sql.query("requeue_tenant"), tenant, lost["epoch"], REQUEUED_ROWS - queued
                )
                await connection.executemany(sql.query("requeue_job"), [(tenant, row["memory_id"]) for row in older])
                queued += len(older)
                if queued >= REQUEUED_ROWS:
                    start = tenant
                    break
                # No tenant's name contains a space, and none sorts between a name and the name with one.
                start = tenant + " "
            await connection.execute(sql.query("note_requeue"), lost["name"], start)
        return queued


def _collection(row: asyncpg.Record) -> Collection:
    return Collection(
        name=row["name"],
        epoch=row["epoch"],
        profile=row["profile"],
        dimension=row["dimension"],
        tenant_name=row["tenant"],
        filled=row["filled"],
    )


def _short(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=6).hexdigest()

"""Snapshots of working memory on Postgres."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from memory_server.domain.sessions import Saved, Snapshot, SnapshotListing, is_held
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.pools import Pools
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class PostgresSessions:
    """The session store; see :class:`memory_server.core.sessions.SessionStore`."""

    pools: Pools

    async def save(self, tenant: Tenant, snapshot: Snapshot) -> Saved:
        """Keep a snapshot unless the one held is newer or another owner's; the first of a session gets epoch 1."""
        async with self.pools.interactive.tenant(tenant) as connection:
            row = await connection.fetchrow(
                sql.query("save_session"),
                tenant.name,
                snapshot.session_id,
                snapshot.brain_id,
                snapshot.persona_id,
                snapshot.epoch,
                snapshot.version,
                snapshot.sequence,
                snapshot.item_count,
                snapshot.omitted_items,
                snapshot.content_format,
                snapshot.content,
            )
            if row is not None:
                return Saved(True, row["epoch"], row["version"])
            # The conflict has locked the row, so it is still there.
            row = await connection.fetchrow(sql.query("read_session"), tenant.name, snapshot.session_id)
        held = _snapshot(row)
        return Saved(is_held(snapshot, held), held.epoch, held.version)

    async def load(self, tenant: Tenant, session_id: str) -> Snapshot | None:
        """Read a snapshot with its content."""
        async with self.pools.interactive.tenant(tenant) as connection:
            row = await connection.fetchrow(sql.query("read_session"), tenant.name, session_id)
        return _snapshot(row) if row is not None else None

    async def take_over(self, tenant: Tenant, session_id: str, brain_id: str) -> Snapshot | None:
        """Make a brain the owner and read the snapshot, in one step."""
        async with self.pools.interactive.tenant(tenant) as connection:
            row = await connection.fetchrow(sql.query("take_over_session"), tenant.name, session_id, brain_id)
        return _snapshot(row) if row is not None else None

    async def list_snapshots(self, tenant: Tenant, listing: SnapshotListing) -> list[Snapshot]:
        """Read one page without contents."""
        async with self.pools.interactive.tenant(tenant) as connection:
            rows = await connection.fetch(
                sql.query("list_sessions"),
                tenant.name,
                listing.after,
                listing.brain_id,
                listing.persona_id,
                listing.saved_after,
                listing.limit,
            )
        return [_snapshot(row) for row in rows]

    async def delete(self, tenant: Tenant, session_id: str, *, epoch: int | None) -> bool:
        """Delete a snapshot, if given only of this epoch; return whether one was deleted."""
        async with self.pools.interactive.tenant(tenant) as connection:
            return await connection.fetchrow(sql.query("delete_session"), tenant.name, session_id, epoch) is not None


def _snapshot(row: asyncpg.Record) -> Snapshot:
    return Snapshot(
        session_id=row["session_id"],
        brain_id=row["brain_id"],
        version=row["version"],
        epoch=row["epoch"],
        persona_id=row["persona_id"],
        sequence=row["sequence"],
        item_count=row["item_count"],
        omitted_items=row["omitted_items"],
        content_format=row["content_format"],
        content=row["snapshot"],
        saved_at=row["updated_at"],
    )

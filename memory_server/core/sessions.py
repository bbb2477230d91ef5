"""Keeping working-memory sessions for brains, so that any of them can take one over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memory_server.domain.sessions import Saved, Snapshot, SnapshotListing
from soma_contract.errors import SessionNotFoundError
from soma_contract.tenant import Tenant


class SessionStore(Protocol):
    """Where snapshots are kept, one a session."""

    async def save(self, tenant: Tenant, snapshot: Snapshot) -> Saved:
        """Keep a snapshot unless `replaces` says no; the first of a session gets epoch 1."""
        ...

    async def load(self, tenant: Tenant, session_id: str) -> Snapshot | None:
        """Read a snapshot with its content."""
        ...

    async def take_over(self, tenant: Tenant, session_id: str, brain_id: str) -> Snapshot | None:
        """Make a brain the owner and read the snapshot, in one step."""
        ...

    async def list_snapshots(self, tenant: Tenant, listing: SnapshotListing) -> list[Snapshot]:
        """Read one page without contents."""
        ...

    async def delete(self, tenant: Tenant, session_id: str, *, epoch: int | None) -> bool:
        """Delete a snapshot, if given only of this epoch; return whether one was deleted."""
        ...


@dataclass(frozen=True, slots=True)
class Sessions:
    """What brains ask about sessions."""

    store: SessionStore

    async def save(self, tenant: Tenant, snapshot: Snapshot) -> Saved:
        """Keep a snapshot, or say which newer one is held."""
        return await self.store.save(tenant, snapshot)

    async def load(self, tenant: Tenant, session_id: str, *, new_owner: str) -> Snapshot:
        """Read a snapshot, for its new owner if one is named.  Raises SessionNotFoundError."""
        if new_owner:
            snapshot = await self.store.take_over(tenant, session_id, new_owner)
        else:
            snapshot = await self.store.load(tenant, session_id)
        if snapshot is None:
            raise SessionNotFoundError(session_id=session_id)
        return snapshot

    async def list_snapshots(self, tenant: Tenant, listing: SnapshotListing) -> list[Snapshot]:
        """Read one page without contents."""
        return await self.store.list_snapshots(tenant, listing)

    async def delete(self, tenant: Tenant, session_id: str, *, epoch: int | None) -> bool:
        """Delete a snapshot; return whether there was one."""
        return await self.store.delete(tenant, session_id, epoch=epoch)

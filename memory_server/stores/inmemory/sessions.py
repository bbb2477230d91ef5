"""Snapshots of working memory in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from memory_server.domain.sessions import Saved, Snapshot, SnapshotListing, is_held, replaces, taken_over
from memory_server.ports import Clock
from soma_contract.tenant import Tenant


@dataclass(slots=True)
class InMemorySessions:
    """See :class:`memory_server.core.sessions.SessionStore`."""

    clock: Clock
    kept: dict[tuple[Tenant, str], Snapshot] = field(default_factory=dict)

    async def save(self, tenant: Tenant, snapshot: Snapshot) -> Saved:
        """Keep a snapshot unless the one held is newer or another owner's; the first of a session gets epoch 1."""
        place = tenant, snapshot.session_id
        held = self.kept.get(place)
        if held is None or replaces(snapshot, held):
            epoch = 1 if held is None else snapshot.epoch
            self.kept[place] = replace(snapshot, epoch=epoch, saved_at=self.clock.now())
            return Saved(True, epoch, snapshot.version)
        return Saved(is_held(snapshot, held), held.epoch, held.version)

    async def load(self, tenant: Tenant, session_id: str) -> Snapshot | None:
        """Read a snapshot with its content."""
        return self.kept.get((tenant, session_id))

    async def take_over(self, tenant: Tenant, session_id: str, brain_id: str) -> Snapshot | None:
        """Make a brain the owner and read the snapshot, in one step."""
        held = self.kept.get((tenant, session_id))
        if held is not None:
            self.kept[tenant, session_id] = held = taken_over(held, brain_id)
        return held

    async def list_snapshots(self, tenant: Tenant, listing: SnapshotListing) -> list[Snapshot]:
        """Read one page without contents."""
        own = sorted(session_id for owner, session_id in self.kept if owner == tenant and session_id > listing.after)
        snapshots = (self.kept[tenant, session_id] for session_id in own)
        wanted = [
            replace(snapshot, content=b"")
            for snapshot in snapshots
            if listing.brain_id in ("", snapshot.brain_id)
            and listing.persona_id in ("", snapshot.persona_id)
            and (listing.saved_after is None or (snapshot.saved_at or listing.saved_after) > listing.saved_after)
        ]
        return wanted[: listing.limit]

    async def delete(self, tenant: Tenant, session_id: str, *, epoch: int | None) -> bool:
        """Delete a snapshot, if given only of this epoch; return whether one was deleted."""
        held = self.kept.get((tenant, session_id))
        if held is None or epoch not in (None, held.epoch):
            return False
        del self.kept[tenant, session_id]
        return True

"""What each tenant has in the outbox, counted as it changes: a write must not cost a query."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from brain_server.domain.entry import Entry, EntryState
from soma_contract.tenant import Tenant


@dataclass(slots=True)
class Depth:
    """What one tenant, or all, have in the outbox."""

    pending: int = 0
    dead: int = 0
    payload_bytes: int = 0
    oldest_at: datetime | None = None
    """Origin of the oldest pending entry."""

    def add(self, other: Depth) -> None:
        """Take another depth in."""
        self.pending += other.pending
        self.dead += other.dead
        self.payload_bytes += other.payload_bytes
        if other.oldest_at is not None and (self.oldest_at is None or other.oldest_at < self.oldest_at):
            self.oldest_at = other.oldest_at


class Account:
    """One tenant's entries: pending ones in their order, dead letters by id, all by request id."""

    __slots__ = ("by_request", "dead", "payload_bytes", "pending")

    def __init__(self) -> None:
        self.by_request: dict[str, Entry] = {}
        self.pending: OrderedDict[int, Entry] = OrderedDict()
        self.dead: OrderedDict[str, Entry] = OrderedDict()
        self.payload_bytes = 0

    def depth(self) -> Depth:
        """Return how much there is."""
        oldest = next(iter(self.pending.values()), None)
        return Depth(len(self.pending), len(self.dead), self.payload_bytes, oldest.origin_at if oldest else None)

    def entries(self) -> list[Entry]:
        """Return everything, dead letters last."""
        return [*self.pending.values(), *self.dead.values()]


_NOTHING = Account()


class Accounts:
    """Every tenant's account, and how much they hold together."""

    def __init__(self) -> None:
        self._by_tenant: dict[str, Account] = {}
        self.pending = 0
        self.dead = 0

    def of(self, tenant: Tenant) -> Account:
        """Return a tenant's account to look at; change it through this class only."""
        return self._by_tenant.get(tenant.name, _NOTHING)

    def put(self, entry: Entry) -> None:
        """List an entry under its state, in place of what was listed of it."""
        self.remove(entry)
        account = self._by_tenant.setdefault(entry.tenant.name, Account())
        account.by_request[entry.request_id] = entry
        account.payload_bytes += entry.size
        if entry.state is EntryState.DEAD:
            account.dead[entry.entry_id] = entry
            self.dead += 1
        else:
            account.pending[entry.sequence] = entry
            self.pending += 1

    def replace(self, entry: Entry) -> None:
        """Put an entry's new version where the old one stands."""
        account = self._by_tenant[entry.tenant.name]
        account.by_request[entry.request_id] = account.pending[entry.sequence] = entry

    def remove(self, entry: Entry) -> None:
        """Take an entry off its list, whatever its state."""
        account = self._by_tenant.get(entry.tenant.name)
        if account is None:
            return
        pending = account.pending.pop(entry.sequence, None)
        dead = account.dead.pop(entry.entry_id, None) if pending is None else None
        self.pending -= pending is not None
        self.dead -= dead is not None
        if pending is not None or dead is not None:
            account.payload_bytes -= entry.size
            account.by_request.pop(entry.request_id, None)
            if not account.by_request:
                del self._by_tenant[entry.tenant.name]

    def dead_letters(self, tenant: Tenant | None) -> list[Entry]:
        """Return the dead letters of one tenant, or of all, oldest first."""
        dead = (entry for account in self._some(tenant) for entry in account.dead.values())
        return sorted(dead, key=lambda entry: entry.sequence)

    def depth(self, tenant: Tenant | None) -> Depth:
        """Return the depth of one tenant, or of all together."""
        total = Depth()
        for account in self._some(tenant):
            total.add(account.depth())
        return total

    def deepest(self, most: int) -> list[tuple[str, Depth]]:
        """Return the tenants with most pending entries, at most so many, and their depths."""
        depths = [(name, account.depth()) for name, account in self._by_tenant.items()]
        return sorted(depths, key=lambda one: (-one[1].pending, one[0]))[:most]

    def with_pending(self, at_least: int) -> int:
        """Return how many tenants have so many pending entries."""
        return sum(len(account.pending) >= at_least for account in self._by_tenant.values())

    def _some(self, tenant: Tenant | None) -> Iterator[Account]:
        return iter(self._by_tenant.values()) if tenant is None else iter([self.of(tenant)])

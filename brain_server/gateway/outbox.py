"""The outbox: every single write is on this disk before it is sent, and stays until the memory server has it.

This module keeps the entries and says which may go; `delivery.py` sends them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from brain_server.domain.entry import Draft, Entry, EntryState, Rejection
from brain_server.domain.ordering import Ordering
from brain_server.ports import Clock, NoMetrics, OutboxFile, OutboxMetrics, SystemClock
from soma_contract.errors import DeadLetterNotFoundError, OutboxFullError, RequestIdReusedError
from soma_contract.tenant import Tenant

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxBounds:
    """How much the outbox takes before it refuses."""

    rows: int = 100_000
    """Entries a tenant, dead letters included."""
    payload_bytes: int = 256 * 1024 * 1024
    """Bytes of payload a tenant, dead letters included."""
    free_bytes: int = 1024**3
    """Space that must be left on the disk."""
    warn_rows: int = 10_000
    """Pending entries of a tenant from which on the operator is warned."""
    cached_bytes: int = 64 * 1024 * 1024
    """Payloads of pending entries kept in memory, all tenants together."""
    disk_checked_every_s: float = 0.5


@dataclass(slots=True)
class Depth:
    """What one tenant, or all, have in the outbox."""

    pending: int = 0
    dead: int = 0
    payload_bytes: int = 0
    oldest_at: datetime | None = None
    """Origin of the oldest pending entry."""


class Appended:
    """One entry on its way into the file: await `durable` before acknowledging it."""

    __slots__ = ("durable", "entry", "is_new")

    def __init__(self, entry: Entry, durable: asyncio.Future[None] | None, *, is_new: bool) -> None:
        self.entry = entry
        self.durable = durable
        """Done after the fsync; None if it was durable already."""
        self.is_new = is_new

    async def wait(self) -> None:
        """Wait for the fsync; cancelling the wait does not cancel the append."""
        if self.durable is not None:
            await asyncio.shield(self.durable)


class _Account:
    """One tenant's entries."""

    __slots__ = ("by_request", "dead", "depth", "pending", "warned")

    def __init__(self) -> None:
        self.by_request: dict[str, Entry] = {}
        self.pending: OrderedDict[int, Entry] = OrderedDict()
        self.dead: OrderedDict[str, Entry] = OrderedDict()
        self.depth = Depth()
        self.warned = False


class Outbox:
    """Pending entries and dead letters of all tenants; their index is in memory, their payloads in the file."""

    def __init__(
        self,
        file: OutboxFile,
        *,
        bounds: OutboxBounds | None = None,
        clock: Clock | None = None,
        metrics: OutboxMetrics | None = None,
    ) -> None:
        self.bounds = bounds or OutboxBounds()
        self.ordering = Ordering()
        self.on_ready: Callable[[Entry], None] = lambda entry: None
        """Called when a durable entry has become the oldest for all it touches."""
        self.on_gone: Callable[[Entry], None] = lambda entry: None
        """Called when an entry was erased, whatever its state."""
        self._file = file
        self._clock = clock or SystemClock()
        self._metrics = metrics or NoMetrics()
        self._accounts: dict[str, _Account] = {}
        self._epochs: dict[str, int] = {}
        self._next_sequence = 1
        self._appending: dict[int, asyncio.Future[None]] = {}
        self._payloads: dict[int, bytes] = {}
        self._cached = 0
        self._pending = 0
        self._dead = 0
        self._disk_checked_at = float("-inf")
        self._disk_is_low = False

    async def load(self) -> None:
        """Read what the file holds; call it once, before anything else."""
        contents = await self._file.load()
        self._epochs.update(contents.epochs)
        self._next_sequence = contents.last_sequence + 1
        for entry in contents.entries:
            account = self._account(entry.tenant)
            account.by_request[entry.request_id] = entry
            account.depth.payload_bytes += entry.size
            if entry.state is EntryState.DEAD:
                self._list_dead(account, entry)
            else:
                self._list_pending(account, entry)
                self.ordering.add(entry)
        self._report()

    # --- in -----------------------------------------------------------------------------------

    def append(self, tenant: Tenant, draft: Draft) -> Appended:
        """Begin to append a write, or find the entry of a repeated request; await what it returns.

        Raises RequestIdReusedError if the request id was used for another request, OutboxFullError at a bound, and a
        dead letter's own error if that is what the repeated request became.
        """
        account = self._account(tenant)
        digest = self._file.digest(draft.fingerprint or _canonical(draft))
        found = account.by_request.get(draft.request_id)
        if found is not None:
            if found.digest != digest:
                raise RequestIdReusedError(request_id=draft.request_id)
            if found.state is EntryState.DEAD and found.rejection is not None:
                raise found.rejection.error()
            return Appended(found, self._appending.get(found.sequence), is_new=False)
        self._check_bounds(account, len(draft.payload))
        entry = Entry(
            sequence=self._next_sequence,
            tenant=tenant,
            entry_id=draft.entry_id,
            request_id=draft.request_id,
            operation=draft.operation,
            touched=tuple(dict.fromkeys(draft.touched)),
            origin_at=draft.origin_at,
            brain_id=self._file.brain_id,
            epoch=self.epoch(tenant),
            size=len(draft.payload),
            digest=digest,
        )
        self._next_sequence += 1
        account.by_request[entry.request_id] = entry
        account.depth.payload_bytes += entry.size
        self._list_pending(account, entry)
        self.ordering.add(entry)
        if self._cached + entry.size <= self.bounds.cached_bytes:
            self._payloads[entry.sequence] = draft.payload
            self._cached += entry.size
        durable = self._appending[entry.sequence] = self._file.append(entry, draft.payload)
        durable.add_done_callback(partial(self._appended, entry))
        return Appended(entry, durable, is_new=True)

    def _appended(self, entry: Entry, durable: asyncio.Future[None]) -> None:
        self._appending.pop(entry.sequence, None)
        if durable.cancelled() or durable.exception() is not None:
            self._forget(entry)
        elif self.ordering.is_ready(entry):
            self._tell_ready([entry])
        self._report()

    def _check_bounds(self, account: _Account, size: int) -> None:
        depth, bounds = account.depth, self.bounds
        now = self._clock.monotonic()
        if now - self._disk_checked_at >= bounds.disk_checked_every_s:
            self._disk_checked_at = now
            self._disk_is_low = self._file.free_bytes() < bounds.free_bytes
        scope, limit = "", 0
        if depth.pending + depth.dead >= bounds.rows:
            scope, limit = "rows", bounds.rows
        elif depth.payload_bytes + size > bounds.payload_bytes:
            scope, limit = "bytes", bounds.payload_bytes
        elif self._disk_is_low:
            scope, limit = "disk", bounds.free_bytes
        if scope:
            self._metrics.outbox_refused(scope)
            raise OutboxFullError(scope=scope, limit=str(limit))

    # --- what is there ------------------------------------------------------------------------

    @property
    def brain_id(self) -> str:
        """The name of this brain, which its entries carry."""
        return self._file.brain_id

    def pending(self, tenant: Tenant) -> Iterator[Entry]:
        """Yield a tenant's durable pending entries in the order they were appended."""
        account = self._accounts.get(tenant.name)
        if account is not None:
            yield from (entry for entry in [*account.pending.values()] if entry.sequence not in self._appending)

    def touching(self, tenant: Tenant, memory_id: str) -> tuple[Entry, ...]:
        """Return the durable pending entries of one memory in the order they will be sent."""
        return tuple(
            entry for entry in self.ordering.touching(tenant.name, memory_id) if entry.sequence not in self._appending
        )

    async def payload(self, entry: Entry) -> bytes:
        """Return an entry's payload; raises KeyError if it was settled meanwhile."""
        cached = self._payloads.get(entry.sequence)
        return await self._file.payload(entry) if cached is None else cached

    def depth(self, tenant: Tenant | None = None) -> Depth:
        """Return the depth of one tenant, or of all together."""
        accounts = self._accounts.values() if tenant is None else [self._accounts.get(tenant.name, _Account())]
        total = Depth()
        for account in accounts:
            total.pending += account.depth.pending
            total.dead += account.depth.dead
            total.payload_bytes += account.depth.payload_bytes
            oldest = next(iter(account.pending.values()), None)
            if oldest is not None and (total.oldest_at is None or oldest.origin_at < total.oldest_at):
                total.oldest_at = oldest.origin_at
        return total

    def is_durable(self, entry: Entry) -> bool:
        """Return whether an entry's fsync is behind it."""
        return entry.sequence not in self._appending

    def is_pending(self, entry: Entry) -> bool:
        """Return whether an entry is still to be delivered."""
        return entry in self.ordering

    def tenants_over_warning(self) -> int:
        """Return how many tenants have so many pending entries that an operator should look."""
        return sum(account.depth.pending >= self.bounds.warn_rows for account in self._accounts.values())

    # --- out ----------------------------------------------------------------------------------

    def settle(self, entry: Entry) -> None:
        """Drop an entry that was delivered, or refused to the face of its caller."""
        if entry in self.ordering:
            self._file.settle(entry)
            self._forget(entry)
            self._report()

    def mark(self, entry: Entry) -> Entry:
        """Write down that an entry failed once more for reasons of its own; return it as it is now."""
        account = self._account(entry.tenant)
        account.by_request[entry.request_id] = account.pending[entry.sequence] = entry
        self._file.mark(entry)
        return entry

    def defer(self, entry: Entry) -> None:
        """Let the other entries of its memories go before this one."""
        self._tell_ready(self.ordering.defer(entry))

    def bury(self, entry: Entry, rejection: Rejection) -> None:
        """Put an entry on the dead-letter list with its reason; entries behind it may go."""
        if entry not in self.ordering:
            return
        dead = replace(entry, state=EntryState.DEAD, rejection=rejection)
        self._file.mark(dead)
        account = self._account(entry.tenant)
        self._unlist_pending(account, entry)
        account.by_request[entry.request_id] = dead
        self._list_dead(account, dead)
        self._metrics.outbox_died(entry.operation, rejection.reason)
        log.warning("outbox entry %s (%s) died: %s", entry.entry_id, entry.operation, rejection.reason)
        self._report()
        self._tell_ready(self.ordering.remove(entry))

    # --- dead letters -------------------------------------------------------------------------

    def dead_letters(self, tenant: Tenant | None = None) -> tuple[Entry, ...]:
        """Return the dead letters of one tenant, or of all, oldest first."""
        accounts = self._accounts.values() if tenant is None else [self._accounts.get(tenant.name, _Account())]
        dead = (entry for account in accounts for entry in account.dead.values())
        return tuple(sorted(dead, key=lambda entry: entry.sequence))

    async def replay(self, tenant: Tenant, entry_id: str) -> Entry:
        """Put a dead letter back among the pending entries, behind others of its memories."""
        dead = self._dead_letter(tenant, entry_id)
        entry = replace(dead, state=EntryState.PENDING, attempts=0, rejection=None)
        self._unlist_dead(self._account(tenant), dead)
        try:
            await self._file.remark(entry)
        except BaseException:
            self._list_dead(self._account(tenant), dead)
            raise
        account = self._account(tenant)
        account.by_request[entry.request_id] = entry
        self._list_pending(account, entry)
        self._report()
        if self.ordering.add(entry):
            self.on_ready(entry)
        return entry

    async def discard(self, tenant: Tenant, entry_id: str) -> Entry:
        """Drop a dead letter for good and return it."""
        dead = self._dead_letter(tenant, entry_id)
        account = self._account(tenant)
        self._unlist_dead(account, dead)
        account.by_request.pop(dead.request_id, None)
        account.depth.payload_bytes -= dead.size
        self._report()
        await self._file.discard(dead)
        return dead

    def _dead_letter(self, tenant: Tenant, entry_id: str) -> Entry:
        account = self._accounts.get(tenant.name)
        dead = account.dead.get(entry_id) if account else None
        if dead is None:
            raise DeadLetterNotFoundError(entry_id=entry_id)
        return dead

    # --- erasure ------------------------------------------------------------------------------

    def epoch(self, tenant: Tenant) -> int:
        """Return the tenant's erasure epoch, which new entries carry."""
        return self._epochs.get(tenant.name, 0)

    async def fence(self, tenant: Tenant, epoch: int) -> int:
        """Drop every entry of a tenant from before `epoch`, durably; return how many there were."""
        if epoch <= self.epoch(tenant):
            return 0
        self._epochs[tenant.name] = epoch
        account = self._account(tenant)
        erased = [entry for entry in (*account.pending.values(), *account.dead.values()) if entry.epoch < epoch]
        for entry in erased:
            if entry.state is EntryState.DEAD:
                self._unlist_dead(account, entry)
                account.by_request.pop(entry.request_id, None)
                account.depth.payload_bytes -= entry.size
            else:
                self._forget(entry)
            self.on_gone(entry)
        self._report()
        # Appends that are under way stand before this in the writer's line, so it drops them too.
        await self._file.fence(tenant, epoch)
        return len(erased)

    # --- bookkeeping --------------------------------------------------------------------------

    def _account(self, tenant: Tenant) -> _Account:
        account = self._accounts.get(tenant.name)
        if account is None:
            account = self._accounts[tenant.name] = _Account()
        return account

    def _list_pending(self, account: _Account, entry: Entry) -> None:
        account.pending[entry.sequence] = entry
        account.depth.pending += 1
        self._pending += 1
        if account.depth.pending >= self.bounds.warn_rows and not account.warned:
            account.warned = True
            log.warning("a tenant has %d writes waiting for the memory server", account.depth.pending)

    def _unlist_pending(self, account: _Account, entry: Entry) -> None:
        del account.pending[entry.sequence]
        account.depth.pending -= 1
        self._pending -= 1
        account.warned = account.warned and account.depth.pending * 2 > self.bounds.warn_rows
        self._cached -= len(self._payloads.pop(entry.sequence, b""))

    def _list_dead(self, account: _Account, entry: Entry) -> None:
        account.dead[entry.entry_id] = entry
        account.depth.dead += 1
        self._dead += 1

    def _unlist_dead(self, account: _Account, entry: Entry) -> None:
        del account.dead[entry.entry_id]
        account.depth.dead -= 1
        self._dead -= 1

    def _forget(self, entry: Entry) -> None:
        """Take a pending entry out of every index."""
        if entry not in self.ordering:
            return
        account = self._account(entry.tenant)
        self._unlist_pending(account, entry)
        account.depth.payload_bytes -= entry.size
        account.by_request.pop(entry.request_id, None)
        self._tell_ready(self.ordering.remove(entry))
        if not account.by_request:
            del self._accounts[entry.tenant.name]

    def _tell_ready(self, ready: list[Entry]) -> None:
        for entry in ready:
            # What an erase is about to drop must not leave in its last moment.
            if entry.sequence not in self._appending and entry.epoch >= self.epoch(entry.tenant):
                self.on_ready(entry)

    def _report(self) -> None:
        self._metrics.outbox_changed(self._pending, self._dead)


def _canonical(draft: Draft) -> bytes:
    parts = (draft.operation, *draft.touched)
    return "".join(f"{len(part)}:{part}" for part in parts).encode() + b"\0" + draft.payload

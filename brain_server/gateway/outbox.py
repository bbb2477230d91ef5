"""The outbox: every single write is on this disk before it is sent, and stays until the memory server has it.

This module keeps the entries and says which may go; `delivery.py` sends them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from brain_server.domain.entry import Draft, Entry, EntryState, Rejection
from brain_server.domain.ordering import Ordering
from brain_server.domain.settled import OWN_PREFIX, Settled, SettledRequests
from brain_server.gateway.accounts import Account, Accounts, Depth
from brain_server.ports import Clock, NoMetrics, OutboxFile, OutboxMetrics, SystemClock
from rpckit.call import current_call_or_none
from soma_contract.errors import DeadLetterNotFoundError, OutboxFullError, RequestIdReusedError
from soma_contract.tenant import Tenant

log = logging.getLogger(__name__)

_PRUNED_EVERY = 1_024
"""Settled entries, after each of which the file lets go of old requests."""
_NOTED_WITHIN_S = 1.0
"""After which the file has surely done what it was to do soon."""


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
        self._accounts = Accounts()
        self._epochs: dict[str, int] = {}
        self._next_sequence = 1
        self._appending: dict[int, asyncio.Future[None]] = {}
        self._payloads: dict[int, bytes] = {}
        self._cached = 0
        self._disk_checked_at = float("-inf")
        self._disk_is_low = False
        self._settled = SettledRequests()
        self._settles = 0
        self._settled_at = float("-inf")

    async def load(self) -> None:
        """Read what the file holds; call it once, before anything else."""
        contents = await self._file.load()
        self._epochs.update(contents.epochs)
        self._next_sequence = contents.last_sequence + 1
        self._settled.load(contents.settled)
        for entry in contents.entries:
            self._accounts.put(entry)
            if entry.state is EntryState.PENDING:
                self.ordering.add(entry)
        self._report()

    # --- in -----------------------------------------------------------------------------------

    def append(self, tenant: Tenant, draft: Draft) -> Appended:
        """Begin to append a write, or find the entry of a repeated request; await what it returns.

        Raises RequestIdReusedError if the request id was used for another request, OutboxFullError at a bound, and a
        dead letter's own error if that is what the repeated request became.
        """
        account = self._accounts.of(tenant)
        digest = self._file.digest(draft.fingerprint or _canonical(draft))
        found = account.by_request.get(draft.request_id)
        if found is not None:
            if found.digest != digest:
                raise RequestIdReusedError(request_id=draft.request_id)
            if found.state is EntryState.DEAD and found.rejection is not None:
                raise found.rejection.error()
            return Appended(found, self._appending.get(found.sequence), is_new=False)
        self._check_bounds(account, len(draft.payload))
        entry = self._entry(tenant, draft, digest, self._next_sequence)
        self._next_sequence += 1
        self._accounts.put(entry)
        self.ordering.add(entry)
        if (waiting := len(self._accounts.of(tenant).pending)) == self.bounds.warn_rows:
            log.warning("a tenant has %d writes waiting for the memory server", waiting)
        if self._cached + entry.size <= self.bounds.cached_bytes:
            self._payloads[entry.sequence] = draft.payload
            self._cached += entry.size
        durable = self._appending[entry.sequence] = self._file.append(entry, draft.payload)
        durable.add_done_callback(partial(self._appended, entry))
        return Appended(entry, durable, is_new=True)

    def delivered_before(self, tenant: Tenant, draft: Draft) -> Entry | None:
        """Return a repeated request that was delivered already, as an entry that has no place in the line.

        Raises RequestIdReusedError if the request id was used for another request.
        """
        settled = self._settled.find(tenant.name, draft.request_id)
        if settled is None:
            return None
        digest = self._file.digest(draft.fingerprint or _canonical(draft))
        if settled.digest != digest:
            raise RequestIdReusedError(request_id=draft.request_id)
        return self._entry(tenant, draft, digest, 0)

    def _entry(self, tenant: Tenant, draft: Draft, digest: bytes, sequence: int) -> Entry:
        return Entry(
            sequence=sequence,
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
            traceparent=call.trace.traceparent if (call := current_call_or_none()) else "",
        )

    def _appended(self, entry: Entry, durable: asyncio.Future[None]) -> None:
        self._appending.pop(entry.sequence, None)
        if durable.cancelled() or durable.exception() is not None:
            self._forget(entry)
        elif self.ordering.is_ready(entry):
            self._tell_ready([entry])
        self._report()

    def _check_bounds(self, account: Account, size: int) -> None:
        bounds = self.bounds
        now = self._clock.monotonic()
        if now - self._disk_checked_at >= bounds.disk_checked_every_s:
            self._disk_checked_at = now
            self._disk_is_low = self._file.free_bytes() < bounds.free_bytes
        scope, limit = "", 0
        if len(account.by_request) >= bounds.rows:
            scope, limit = "rows", bounds.rows
        elif account.payload_bytes + size > bounds.payload_bytes:
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
        """Return a tenant's durable pending entries in the order they were appended."""
        pending = [*self._accounts.of(tenant).pending.values()]
        return iter([entry for entry in pending if entry.sequence not in self._appending])

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
        return self._accounts.depth(tenant)

    def deepest(self, most: int) -> list[tuple[str, Depth]]:
        """Return the tenants with most pending entries, at most so many, and their depths."""
        return self._accounts.deepest(most)

    def is_durable(self, entry: Entry) -> bool:
        """Return whether an entry's fsync is behind it."""
        return entry.sequence not in self._appending

    def is_pending(self, entry: Entry) -> bool:
        """Return whether an entry is still to be delivered."""
        return entry in self.ordering

    def tenants_over_warning(self) -> int:
        """Return how many tenants have so many pending entries that an operator should look."""
        return self._accounts.with_pending(self.bounds.warn_rows)

    # --- out ----------------------------------------------------------------------------------

    def settle(self, entry: Entry, *, delivered: bool) -> None:
        """Drop an entry that was delivered, or refused to the face of its caller."""
        if entry in self.ordering:
            settled = None
            if delivered and not entry.request_id.startswith(OWN_PREFIX):
                settled = Settled(entry.tenant.name, entry.request_id, entry.digest, self._clock.now())
                self._settled.add(settled)
            self._file.settle(entry, settled)
            self._settled_at = self._clock.monotonic()
            self._settles += 1
            if self._settles % _PRUNED_EVERY == 0 and (oldest_at := self._settled.oldest_at) is not None:
                self._file.forget_settled(oldest_at)
            self._forget(entry)
            self._report()

    async def noted(self) -> None:
        """Wait until what was delivered is known as such after a crash, too."""
        if self._clock.monotonic() - self._settled_at < _NOTED_WITHIN_S:
            await self._file.noted()

    def mark(self, entry: Entry) -> Entry:
        """Write down that an entry failed once more for reasons of its own; return it as it is now."""
        self._accounts.replace(entry)
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
        self._accounts.put(dead)
        self._uncache(entry)
        self._metrics.outbox_died(entry.operation, rejection.reason)
        log.warning("outbox entry %s (%s) died: %s", entry.entry_id, entry.operation, rejection.reason)
        self._report()
        self._tell_ready(self.ordering.remove(entry))

    # --- dead letters -------------------------------------------------------------------------

    def dead_letters(self, tenant: Tenant | None = None) -> tuple[Entry, ...]:
        """Return the dead letters of one tenant, or of all, oldest first."""
        return tuple(self._accounts.dead_letters(tenant))

    async def replay(self, tenant: Tenant, entry_id: str) -> Entry:
        """Put a dead letter back among the pending entries, behind others of its memories."""
        dead = self._dead_letter(tenant, entry_id)
        entry = replace(dead, state=EntryState.PENDING, attempts=0, rejection=None)
        # Off the list first, so that it is not replayed twice.
        self._accounts.remove(dead)
        try:
            await self._file.remark(entry)
        except BaseException:
            self._accounts.put(dead)
            raise
        self._accounts.put(entry)
        self._report()
        if self.ordering.add(entry):
            self.on_ready(entry)
        return entry

    async def discard(self, tenant: Tenant, entry_id: str) -> Entry:
        """Drop a dead letter for good and return it."""
        dead = self._dead_letter(tenant, entry_id)
        self._accounts.remove(dead)
        self._report()
        await self._file.discard(dead)
        return dead

    def _dead_letter(self, tenant: Tenant, entry_id: str) -> Entry:
        dead = self._accounts.of(tenant).dead.get(entry_id)
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
        erased = [entry for entry in self._accounts.of(tenant).entries() if entry.epoch < epoch]
        for entry in erased:
            self._forget(entry)
            self.on_gone(entry)
        self._settled.forget(tenant.name)
        self._report()
        # Appends that are under way stand before this in the writer's line, so it drops them too.
        await self._file.fence(tenant, epoch)
        return len(erased)

    # --- bookkeeping --------------------------------------------------------------------------

    def _forget(self, entry: Entry) -> None:
        """Take an entry out of every index."""
        self._accounts.remove(entry)
        self._uncache(entry)
        self._tell_ready(self.ordering.remove(entry))

    def _uncache(self, entry: Entry) -> None:
        self._cached -= len(self._payloads.pop(entry.sequence, b""))

    def _tell_ready(self, ready: list[Entry]) -> None:
        for entry in ready:
            # What an erase is about to drop must not leave in its last moment.
            if entry.sequence not in self._appending and entry.epoch >= self.epoch(entry.tenant):
                self.on_ready(entry)

    def _report(self) -> None:
        self._metrics.outbox_changed(self._accounts.pending, self._accounts.dead)


def _canonical(draft: Draft) -> bytes:
    parts = (draft.operation, *draft.touched)
    return "".join(f"{len(part)}:{part}" for part in parts).encode() + b"\0" + draft.payload

"""Outbox entries in memory."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import datetime

from brain_server.domain.entry import Entry
from brain_server.domain.settled import Settled
from brain_server.ports import OutboxContents
from soma_contract.tenant import Tenant


class InMemoryOutbox:
    """Keeps entries as long as the object lives; a second outbox on it is a restart."""

    brain_id = "brain-in-memory"

    def __init__(self, free_bytes: int = 1 << 40) -> None:
        self._entries: dict[int, Entry] = {}
        self._payloads: dict[int, bytes] = {}
        self._epochs: dict[str, int] = {}
        self._settled: dict[tuple[str, str], Settled] = {}
        self._last_sequence = 0
        self.free = free_bytes
        self.failure: Exception | None = None
        """Raised by every durable write while set."""

    async def load(self) -> OutboxContents:
        """Return everything that is kept, without payloads."""
        entries = tuple(self._entries[sequence] for sequence in sorted(self._entries))
        settled = tuple(sorted(self._settled.values(), key=lambda one: one.at))
        return OutboxContents(entries, dict(self._epochs), self._last_sequence, settled)

    def append(self, entry: Entry, payload: bytes) -> asyncio.Future[None]:
        """Keep a new entry."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self.failure is not None:
            loop.call_soon(future.set_exception, self.failure)
            return future
        self._entries[entry.sequence] = entry
        self._payloads[entry.sequence] = payload
        self._last_sequence = max(self._last_sequence, entry.sequence)
        loop.call_soon(future.set_result, None)
        return future

    async def payload(self, entry: Entry) -> bytes:
        """Return the payload of a kept entry; raises KeyError if it is gone."""
        if entry.sequence not in self._payloads:
            raise KeyError(entry.entry_id)
        return self._payloads[entry.sequence]

    def digest(self, content: bytes) -> bytes:
        """Return 16 bytes that tell contents apart."""
        return hashlib.blake2b(content, digest_size=16).digest()

    def settle(self, entry: Entry, settled: Settled | None = None) -> None:
        """Drop an entry and keep its request."""
        self._entries.pop(entry.sequence, None)
        self._payloads.pop(entry.sequence, None)
        if settled is not None:
            self._settled[settled.tenant, settled.request_id] = settled

    def forget_settled(self, before: datetime) -> None:
        """Let go of requests that were delivered before."""
        self._settled = {place: settled for place, settled in self._settled.items() if settled.at >= before}

    async def noted(self) -> None:
        """All is done already."""
        self._check()

    def mark(self, entry: Entry) -> None:
        """Write down an entry's state, attempts and rejection."""
        kept = self._entries.get(entry.sequence)
        if kept is not None:
            self._entries[entry.sequence] = replace(
                kept, state=entry.state, attempts=entry.attempts, rejection=entry.rejection
            )

    async def remark(self, entry: Entry) -> None:
        """Write down an entry's state, attempts and rejection."""
        self._check()
        self.mark(entry)

    async def discard(self, entry: Entry) -> None:
        """Drop an entry."""
        self._check()
        self.settle(entry)

    async def fence(self, tenant: Tenant, epoch: int) -> None:
        """Set a tenant's erasure epoch and drop its entries of earlier ones."""
        self._check()
        self._epochs[tenant.name] = max(epoch, self._epochs.get(tenant.name, 0))
        for entry in [*self._entries.values()]:
            if entry.tenant == tenant and entry.epoch < epoch:
                self.settle(entry)
        self._settled = {place: settled for place, settled in self._settled.items() if place[0] != tenant.name}

    def free_bytes(self) -> int:
        """Return what the test said is left."""
        return self.free

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

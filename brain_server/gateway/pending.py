"""The outbox as the use cases see it: commands that are pending, and the way in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from brain_server.domain.entry import Draft, Entry
from brain_server.gateway.commands import FORGET, REMEMBER, UPDATE, decoded
from brain_server.gateway.delivery import Delivery, Stored
from brain_server.gateway.outbox import Outbox
from brain_server.ports import Accepted
from soma_contract.memory import Command
from soma_contract.tenant import Tenant

_OF_MEMORIES = frozenset({REMEMBER, UPDATE, FORGET})


@dataclass(frozen=True, slots=True)
class OutboxWrites:
    """The PendingWrites and Submit ports on an outbox and its delivery."""

    outbox: Outbox
    delivery: Delivery

    async def submit(self, tenant: Tenant, draft: Draft, deadline_s: float | None) -> Accepted:
        """Append and send one write."""
        answer = await self.delivery.submit(tenant, draft, deadline_s)
        return Accepted(answer.entry.touched, answer.result if isinstance(answer, Stored) else None)

    def any_touching(self, tenant: Tenant, place: str) -> bool:
        """Return whether a pending write touches this id or place."""
        return bool(self.outbox.touching(tenant, place))

    async def touching(self, tenant: Tenant, place: str) -> list[tuple[Command, datetime]]:
        """Return the pending writes that touch this id or place, oldest first."""
        return await self._commands(self.outbox.touching(tenant, place))

    async def all_of(self, tenant: Tenant) -> list[tuple[Command, datetime]]:
        """Return all pending writes of memories, oldest first."""
        return await self._commands(self.outbox.pending(tenant))

    def count(self, tenant: Tenant) -> int:
        """Return how many are pending."""
        return self.outbox.depth(tenant).pending

    async def _commands(self, entries: Iterable[Entry]) -> list[tuple[Command, datetime]]:
        return [
            (decoded(entry.operation, await self.outbox.payload(entry)), entry.origin_at)
            for entry in sorted(entries, key=lambda entry: entry.sequence)
            if entry.operation in _OF_MEMORIES
        ]

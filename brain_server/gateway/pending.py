"""The outbox as the use cases see it: commands that are pending, and the way in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from brain_server.domain.entry import Draft, Entry
from brain_server.gateway.commands import FORGET, PROMOTE, REMEMBER, UPDATE, decoded
from brain_server.gateway.delivery import Delivery, Stored
from brain_server.gateway.outbox import Outbox
from brain_server.ports import Accepted
from soma_contract.memory import Command
from soma_contract.tenant import Tenant

_OF_MEMORIES = frozenset({REMEMBER, UPDATE, FORGET, PROMOTE})
_MOST_DECODED = 10_000


@dataclass(frozen=True, slots=True)
class OutboxWrites:
    """The PendingWrites and Submit ports on an outbox and its delivery."""

    outbox: Outbox
    delivery: Delivery
    _decoded: OrderedDict[int, Command] = field(default_factory=OrderedDict)
    """By sequence; in an outage every recall looks at the same entries."""

    async def submit(self, tenant: Tenant, draft: Draft, deadline_s: float | None) -> Accepted:
        """Append and send one write."""
        answer = await self.delivery.submit(tenant, draft, deadline_s)
        return Accepted(answer.entry.touched, answer.result if isinstance(answer, Stored) else None)

    def any_touching(self, tenant: Tenant, place: str) -> bool:
        """Return whether a pending write touches this id or place."""
        return bool(self.outbox.touching(tenant, place))

    async def touching(self, tenant: Tenant, *places: str) -> list[tuple[Command, datetime]]:
        """Return the pending writes that touch one of these ids or places, oldest first."""
        entries = {entry.sequence: entry for place in places for entry in self.outbox.touching(tenant, place)}
        return await self._commands(entries.values())

    async def all_of(self, tenant: Tenant) -> list[tuple[Command, datetime]]:
        """Return all pending writes of memories, oldest first."""
        return await self._commands(self.outbox.pending(tenant))

    async def newest(self, tenant: Tenant, most: int) -> list[tuple[Command, datetime]]:
        """Return the writes of memories that were accepted last, oldest of them first."""
        return await self._commands([*self.outbox.pending(tenant)][-most:])

    def count(self, tenant: Tenant) -> int:
        """Return how many are pending."""
        return self.outbox.depth(tenant).pending

    def oldest_at(self, tenant: Tenant) -> datetime | None:
        """Return when the oldest was accepted."""
        return self.outbox.depth(tenant).oldest_at

    async def noted(self) -> None:
        """Wait until what was delivered is known as such after a crash, too."""
        await self.outbox.noted()

    async def _commands(self, entries: Iterable[Entry]) -> list[tuple[Command, datetime]]:
        found: list[tuple[Entry, Command]] = []
        for entry in sorted(entries, key=lambda entry: entry.sequence):
            if entry.operation in _OF_MEMORIES:
                try:
                    found.append((entry, await self._command(entry)))
                except KeyError:
                    # Delivered a moment ago, and what came before it at the same memory too: whoever asks the memory
                    # server after this finds it there, and the one before must not be taken for the last.
                    found = [one for one in found if not set(one[0].touched) & set(entry.touched)]
        return [(command, entry.origin_at) for entry, command in found]

    async def _command(self, entry: Entry) -> Command:
        command = self._decoded.get(entry.sequence)
        if command is None:
            command = self._decoded[entry.sequence] = decoded(entry.operation, await self.outbox.payload(entry))
            if len(self._decoded) > _MOST_DECODED:
                self._decoded.popitem(last=False)
        return command

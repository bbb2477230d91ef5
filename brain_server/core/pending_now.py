"""The writes that were pending at one moment, looked up before long-term memory is asked.

A write may be delivered while the memory server searches: its answer is then from before the write, and in the outbox
the write is no longer.  Who looks it up first, and keeps what it saw until the answer is there, misses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from brain_server.domain.pending import applied, touched
from brain_server.ports import PendingWrites
from soma_contract.memory import Command, Memory
from soma_contract.tenant import Tenant

MOST_PENDING = 5_000
"""Pending writes a recall looks through, the newest; more are told as a degraded leg."""

Commands = list[tuple[Command, datetime]]


@dataclass(frozen=True, slots=True)
class PendingNow:
    """Pending writes by the first place they touch, oldest first."""

    chains: dict[str, Commands] = field(default_factory=dict)
    truncated: bool = False
    """Whether there were more than are here."""

    @classmethod
    async def of(cls, tenant: Tenant, pending: PendingWrites) -> Self:
        """Look up the newest pending writes of a tenant."""
        count = pending.count(tenant)
        if not count:
            return cls()
        chains: dict[str, Commands] = {}
        for command, at in await pending.newest(tenant, MOST_PENDING):
            chains.setdefault(touched(command)[0], []).append((command, at))
        return cls(chains, truncated=count > MOST_PENDING)

    def __bool__(self) -> bool:
        return bool(self.chains)

    def touches(self, memory_id: str) -> bool:
        """Whether a write changes this memory."""
        return memory_id in self.chains

    def applied(self, memory: Memory) -> Memory | None:
        """What the writes make of a memory; None if they delete it."""
        return applied(memory, self.chains.get(memory.memory_id, ()))

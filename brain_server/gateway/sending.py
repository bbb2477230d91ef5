"""Sends outbox entries to the memory server, as if the caller called again with the same request id."""

from __future__ import annotations

from dataclasses import dataclass

from brain_server.domain.entry import Entry
from brain_server.gateway.commands import decoded
from brain_server.ports.long_term import LongTerm
from soma_contract.memory import Origin, Written

ATTEMPT_S = 10.0


@dataclass(frozen=True, slots=True)
class MemorySender:
    """The Sender port: one entry, one call, under the service credential and the entry's tenant."""

    long_term: LongTerm

    async def send(self, entry: Entry, payload: bytes) -> Written:
        """Store the entry; sending it twice has the effect of once, by its request id."""
        return await self.long_term.write(
            entry.tenant,
            decoded(entry.operation, payload),
            origin=Origin(entry.brain_id, entry.origin_at),
            request_id=entry.entry_id,
            most_s=ATTEMPT_S,
        )

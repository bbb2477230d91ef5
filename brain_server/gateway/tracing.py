"""Spans of what the outbox delivers later: each is linked to the call that wrote the entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from brain_server.domain.entry import Entry
from brain_server.ports import Sender
from rpckit.telemetry.tracing import Spans


@dataclass(frozen=True, slots=True)
class TracedSender:
    """The Sender port around another one."""

    sender: Sender
    spans: Spans

    async def send(self, entry: Entry, payload: bytes) -> Any:
        """Send the entry within a span of its own, or within its caller's if that still waits."""
        attributes = {
            "soma.outbox.operation": entry.operation,
            "soma.outbox.entry_id": entry.entry_id,
            "soma.tenant": entry.tenant.name,
        }
        with self.spans.linked(f"deliver {entry.operation}", entry.traceparent, attributes):
            return await self.sender.send(entry, payload)

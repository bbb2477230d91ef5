"""A memory server that behaves badly, and writes to send to it: what the outbox tests run against."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from random import Random
from uuid import UUID

from brain_server.domain.entry import Draft, Entry
from soma_contract.errors import BudgetSpentError, ComponentUnavailableError, SomaError
from soma_contract.tenant import Tenant
from tests.unit.brain.virtual_time import START


class MemoryServer:
    """Applies each request id once, as the real one does; loses replies, is slow and goes away when told."""

    remembers_requests = True

    def __init__(self, rng: Random | None = None) -> None:
        self.rng = rng or Random(0)
        self.applied: list[Entry] = []
        self.seen: set[tuple[str, str]] = set()
        self.sent = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.most_by_tenant: dict[str, int] = defaultdict(int)
        self._by_tenant: dict[str, int] = defaultdict(int)
        self.down = False
        self.loses_requests = 0.0
        self.loses_replies = 0.0
        self.latency_s: Callable[[Entry], float] = lambda entry: 0.001
        self.refuses: Callable[[Entry], SomaError | None] = lambda entry: None

    async def send(self, entry: Entry, payload: bytes) -> str:
        self.sent += 1
        self.in_flight += 1
        name = entry.tenant.name
        self._by_tenant[name] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.most_by_tenant[name] = max(self.most_by_tenant[name], self._by_tenant[name])
        try:
            return await self._answer(entry, payload)
        finally:
            self.in_flight -= 1
            self._by_tenant[name] -= 1

    async def _answer(self, entry: Entry, payload: bytes) -> str:
        if self.down:
            raise ComponentUnavailableError(component="memory")
        await asyncio.sleep(self.latency_s(entry) / 2)
        if self.rng.random() < self.loses_requests:
            raise ComponentUnavailableError(component="memory")
        error = self.refuses(entry)
        if error is not None:
            raise error
        if (name := (entry.tenant.name, entry.request_id)) not in self.seen or not self.remembers_requests:
            self.seen.add(name)
            self.applied.append(entry)
        await asyncio.sleep(self.latency_s(entry) / 2)
        if self.rng.random() < self.loses_replies:
            raise BudgetSpentError(stage="reply")
        return f"stored {entry.request_id}"

    def requests(self, tenant: Tenant | None = None) -> list[str]:
        return [entry.request_id for entry in self.applied if tenant is None or entry.tenant == tenant]


def draft(number: int, *touched: str, operation: str = "remember", payload: bytes = b"{}") -> Draft:
    return Draft(
        entry_id=str(UUID(int=number)),
        request_id=f"r{number}",
        operation=operation,
        touched=touched or (f"m{number}",),
        payload=payload,
        origin_at=START,
    )

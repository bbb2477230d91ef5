"""The memory server is away while a brain with a real file takes writes, and the brain is restarted meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from brain_server.domain.entry import Draft
from brain_server.gateway.delivery import Delivery, Queued
from brain_server.gateway.outbox import Outbox, OutboxBounds
from brain_server.stores.sqlite.entries import SqliteOutbox
from brain_server.stores.sqlite.file import BrainFile
from soma_contract.tenant import admin_tenant
from tests.unit.brain.outbox_world import MemoryServer

TENANTS = [admin_tenant(f"t{number}", reason="tests") for number in range(10)]
MEMORIES = 200
WRITERS = 64


@asynccontextmanager
async def brain(directory: Path, server: MemoryServer) -> AsyncIterator[Delivery]:
    async with BrainFile(directory) as file:
        outbox = Outbox(SqliteOutbox(file), bounds=OutboxBounds(free_bytes=0, cached_bytes=1_000_000))
        await outbox.load()
        async with Delivery(outbox, server) as delivery:
            yield delivery


async def write(delivery: Delivery, first: int, count: int) -> int:
    """Write from many callers at once; return how many were queued."""
    numbers = iter(range(first, first + count))
    queued = 0

    async def caller() -> None:
        nonlocal queued
        for number in numbers:
            memory_id = f"m{number * 7919 % MEMORIES}"
            request = f"r{number}"
            draft = Draft(request, request, "remember", (memory_id,), b"x" * 200, datetime.now(UTC))
            answer = await delivery.submit(TENANTS[number % len(TENANTS)], draft, deadline_s=5.0)
            queued += isinstance(answer, Queued)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(caller())
    return queued


async def survive(directory: Path, writes: int) -> None:
    server = MemoryServer(Random(1))
    server.down = True
    third = writes // 3
    async with brain(directory, server) as delivery:
        assert await write(delivery, 0, third) == third
    async with brain(directory, server) as delivery:
        assert await write(delivery, third, third) == third
        assert delivery.outbox.depth().pending == 2 * third
        server.down = False
        server.loses_replies = 0.05
        delivery.wake()
        # New writes go on while the old ones are caught up with.
        await write(delivery, 2 * third, third)
        server.loses_replies = 0.0
        assert await delivery.drain(300.0)
        assert delivery.outbox.depth().dead == 0
    requests = [(entry.tenant.name, entry.request_id) for entry in server.applied]
    assert Counter(requests) == Counter((f"t{number % len(TENANTS)}", f"r{number}") for number in range(3 * third))
    last: dict[tuple[str, str], int] = {}
    for entry in server.applied:
        key = (entry.tenant.name, entry.touched[0])
        assert last.get(key, 0) < entry.sequence
        last[key] = entry.sequence


async def test_an_outage_delays_writes_and_does_nothing_else(tmp_path: Path) -> None:
    await survive(tmp_path / "brain", 3_000)


@pytest.mark.slow
async def test_fifty_thousand_writes_survive_an_outage(tmp_path: Path) -> None:
    await survive(tmp_path / "brain", 50_000)

"""A brain full of sessions comes back fast."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.item import ItemKind, Observation
from brain_server.stores.sqlite.file import BrainFile
from brain_server.stores.sqlite.items import SqliteSessions
from soma_contract.tenant import admin_tenant

TENANT = admin_tenant("alice", reason="tests")
SESSIONS, ITEMS, DIMENSIONS = 1_000, 128, 384


@pytest.mark.slow
async def test_a_thousand_full_sessions_are_back_within_five_seconds(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((4_096, DIMENSIONS)).astype(np.float32)

    def items_of(session: int) -> list[Observation]:
        rows = [(session * 31 + item) % len(vectors) for item in range(ITEMS)]
        return [Observation(ItemKind.THOUGHT, f"{session} {row} " + "x" * 200, vectors[row], 0.8) for row in rows]

    async with BrainFile(tmp_path / "brain") as file:
        working = WorkingMemory(SqliteSessions(file))
        for start in range(0, SESSIONS, 20):
            await asyncio.gather(
                *(working.observe(TENANT, f"s{each}", items_of(each)) for each in range(start, start + 20))
            )
        expected = [[item.item_id for item in await working.items(TENANT, f"s{each}")] for each in range(SESSIONS)]
    started = time.monotonic()
    async with BrainFile(tmp_path / "brain") as file:
        working = WorkingMemory(SqliteSessions(file))
        assert await working.load() == SESSIONS
        took_s = time.monotonic() - started
        found = [[item.item_id for item in await working.items(TENANT, f"s{each}")] for each in range(SESSIONS)]
    assert found == expected
    assert {len(ids) for ids in found} == {ITEMS}
    assert took_s <= 5.0

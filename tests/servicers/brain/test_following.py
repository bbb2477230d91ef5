"""Following the memories that items stand for: what is forgotten elsewhere leaves working memory by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from brain_server.core import following
from brain_server.core.following import Following
from brain_server.core.reading import Reading
from brain_server.domain.item import ItemKind, Observation
from brain_server.ports import SystemClock
from soma_contract.errors import DrainingError
from soma_contract.tenant import Tenant, admin_tenant
from tests.servicers.brain.kit import TENANT, Brain, Shelf, away, observed


@dataclass
class Tape:
    """The Endings port: what a test puts on it, and a break at will."""

    frames: asyncio.Queue[Sequence[str] | None] = field(default_factory=asyncio.Queue)
    followed: list[Tenant] = field(default_factory=list)

    async def of(self, tenant: Tenant) -> AsyncGenerator[Sequence[str], None]:
        self.followed.append(tenant)
        yield ()
        while True:
            frame = await self.frames.get()
            if frame is None:
                raise DrainingError
            yield frame


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and come back at once."""
    monkeypatch.setattr(following, "_LOOK_S", 0.001)
    monkeypatch.setattr(following, "_RETRY_S", (0.001, 0.001))


async def promoted(brain: Brain, *texts: str) -> list[str]:
    """Observe and promote."""
    ids = await observed(brain, *texts, reward=1.0)
    await brain.promoting.promote_items(TENANT, "s", ids)
    return ids


async def until_left(brain: Brain, left: set[str]) -> None:
    """Wait until just these items are in the session."""
    async with asyncio.timeout(5):
        while {item.item_id for item in await brain.working.items(TENANT, "s")} != left:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


def over(brain: Brain, tape: Tape, most_tenants: int = 64) -> Following:
    return Following(brain.working, Reading(brain.shelf, brain.writes, SystemClock()), tape, most_tenants)


async def test_a_forgotten_memory_leaves_without_any_recall(brain: Brain, shelf: Shelf) -> None:
    (kept, forgotten, gone_before) = await promoted(brain, "kept", "forgotten", "gone before anybody followed")
    del shelf.memories[gone_before]
    tape = Tape()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(over(brain, tape).run())
        await until_left(brain, {kept, forgotten})
        tape.frames.put_nowait(["of somebody else", forgotten])
        await until_left(brain, {kept})
        # The stream breaks, and what ends until it is back is told by nobody.
        tape.frames.put_nowait(None)
        del shelf.memories[kept]
        await until_left(brain, set())
        task.cancel()
    assert {TENANT} == set(tape.followed)
    assert len(tape.followed) >= 2


async def test_a_queued_promotion_is_not_taken_for_forgotten(brain: Brain, shelf: Shelf) -> None:
    (stored,) = await promoted(brain, "stored")
    shelf.outage = away()
    (queued,) = await promoted(brain, "queued")
    shelf.outage = None
    brain.delivery.pace.limit = 0
    del shelf.memories[stored]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(over(brain, Tape()).run())
        await until_left(brain, {queued})
        task.cancel()


async def test_only_tenants_with_promoted_items_are_followed_and_the_last_used_of_too_many(brain: Brain) -> None:
    await observed(brain, "nothing promoted")
    tape = Tape()
    others = [admin_tenant(f"tenant-{number}", reason="tests") for number in range(3)]
    for tenant in others:
        (vector,) = await brain.vectors.of([tenant.name])
        (seen,) = await brain.working.observe(tenant, "s", [Observation(ItemKind.THOUGHT, tenant.name, vector, 1.0)])
        await brain.promoting.promote_items(tenant, "s", [seen.item_id])
    follow = over(brain, tape, most_tenants=2)
    async with asyncio.TaskGroup() as group:
        await follow.look(group)
        await asyncio.sleep(0)
        assert {others[1], others[2]} == set(tape.followed)
        await brain.working.count(others[0], "s")
        await follow.look(group)
        await asyncio.sleep(0)
        assert {*others} == set(tape.followed)
        for each in follow._followed.values():
            each.task.cancel()

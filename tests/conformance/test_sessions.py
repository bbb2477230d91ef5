"""What every store of working-memory snapshots must do: the in-memory twin and Postgres pass the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from memory_server.core.sessions import Sessions
from memory_server.domain.sessions import Saved, Snapshot, SnapshotListing
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.sessions import InMemorySessions
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import PoolSizes, open_pools
from memory_server.stores.postgres.sessions import PostgresSessions
from soma_contract.errors import SessionNotFoundError
from soma_contract.tenant import admin_tenant
from tests.support.stores import FreshDatabase

ACME = admin_tenant("acme", reason="tests")
GLOBEX = admin_tenant("globex", reason="tests")


@pytest.fixture(params=["inmemory", pytest.param("postgres", marks=pytest.mark.stores)])
def database(request: pytest.FixtureRequest) -> FreshDatabase | None:
    """Where the store under test is; None for the twin."""
    return None if request.param == "inmemory" else request.getfixturevalue("fresh_database")


@pytest_asyncio.fixture(loop_scope="session")
async def sessions(database: FreshDatabase | None) -> AsyncIterator[Sessions]:
    """The twin and Postgres, one after the other."""
    if database is None:
        yield Sessions(InMemorySessions(SystemClock()))
        return
    await migrate(database.admin_url)
    async with open_pools(database.url, PoolSizes(2, 1, 1)) as pools:
        yield Sessions(PostgresSessions(pools))


def snapshot(session_id: str = "s", version: int = 1, **rest: object) -> Snapshot:
    fields = {"brain_id": "b1", "content": b"\x00items\xff", "content_format": "soma-wm/1", "item_count": 3, **rest}
    return Snapshot(session_id, version=version, **fields)  # type: ignore[arg-type]


async def ids(sessions: Sessions, **selection: object) -> list[str]:
    listing = SnapshotListing(**{"limit": 100, **selection})  # type: ignore[arg-type]
    return [each.session_id for each in await sessions.list_snapshots(ACME, listing)]


async def test_a_snapshot_comes_back_as_it_was_saved(sessions: Sessions) -> None:
    sent = snapshot(persona_id="p", sequence=41, omitted_items=2)
    assert await sessions.save(ACME, sent) == Saved(saved=True, epoch=1, version=1)
    held = await sessions.load(ACME, "s", new_owner="")
    assert held == replace(sent, saved_at=held.saved_at)
    assert held.saved_at is not None


async def test_a_newer_snapshot_replaces_and_an_older_one_is_dropped(sessions: Sessions) -> None:
    assert (await sessions.save(ACME, snapshot(version=5, content=b"five"))).saved
    assert await sessions.save(ACME, snapshot(version=4, content=b"four")) == Saved(saved=False, epoch=1, version=5)
    assert await sessions.save(ACME, snapshot(version=5, content=b"again")) == Saved(saved=True, epoch=1, version=5)
    assert (await sessions.load(ACME, "s", new_owner="")).content == b"five"
    assert (await sessions.save(ACME, snapshot(version=6, content=b"six"))).saved
    assert (await sessions.load(ACME, "s", new_owner="")).content == b"six"


async def test_after_a_take_over_the_former_owner_saves_in_vain(sessions: Sessions) -> None:
    await sessions.save(ACME, snapshot(version=7))
    taken = await sessions.load(ACME, "s", new_owner="b2")
    assert ("b2", 2, 7) == (taken.brain_id, taken.epoch, taken.version)
    assert await sessions.save(ACME, snapshot(version=8)) == Saved(saved=False, epoch=2, version=7)
    mine = snapshot(version=8, brain_id="b2", epoch=2, content=b"mine")
    assert await sessions.save(ACME, mine) == Saved(saved=True, epoch=2, version=8)
    assert (await sessions.load(ACME, "s", new_owner="b2")).epoch == 2, "an owner keeps its epoch"


async def test_of_two_brains_with_one_epoch_only_the_owner_saves(sessions: Sessions) -> None:
    await sessions.save(ACME, snapshot(version=1))
    assert await sessions.save(ACME, snapshot(version=9, brain_id="b2")) == Saved(saved=False, epoch=1, version=1)


async def test_a_session_that_is_not_held_is_taken_with_epoch_one(sessions: Sessions) -> None:
    assert await sessions.save(ACME, snapshot(version=3, epoch=8)) == Saved(saved=True, epoch=1, version=3)


async def test_what_is_not_there_is_not_found_whoever_asks(sessions: Sessions) -> None:
    await sessions.save(ACME, snapshot())
    for tenant, session_id in ((ACME, "t"), (GLOBEX, "s")):
        for new_owner in ("", "b2"):
            with pytest.raises(SessionNotFoundError):
                await sessions.load(tenant, session_id, new_owner=new_owner)
    assert (await sessions.load(ACME, "s", new_owner="")).brain_id == "b1"
    assert not await sessions.delete(GLOBEX, "s", epoch=None)


async def test_lists_are_by_session_id_in_pages_and_without_contents(sessions: Sessions) -> None:
    for number, name in enumerate(("c", "a", "b", "Z")):
        await sessions.save(ACME, snapshot(name, brain_id=f"b{number % 2}", persona_id="p" if name == "a" else ""))
    assert await ids(sessions) == ["Z", "a", "b", "c"]
    assert await ids(sessions, limit=2) == ["Z", "a"]
    assert await ids(sessions, limit=2, after="a") == ["b", "c"]
    assert await ids(sessions, brain_id="b1") == ["Z", "a"]
    assert await ids(sessions, persona_id="p") == ["a"]
    (first, *_) = await sessions.list_snapshots(ACME, SnapshotListing(limit=1))
    assert (b"", 3) == (first.content, first.item_count)
    assert await ids(sessions, saved_after=datetime.now(UTC) + timedelta(minutes=5)) == []
    assert await ids(sessions, saved_after=datetime.now(UTC) - timedelta(minutes=5)) == ["Z", "a", "b", "c"]


async def test_a_deletion_of_another_epoch_deletes_nothing(sessions: Sessions) -> None:
    await sessions.save(ACME, snapshot())
    assert [
        await sessions.delete(ACME, "s", epoch=2),
        await sessions.delete(ACME, "s", epoch=1),
        await sessions.delete(ACME, "s", epoch=None),
    ] == [False, True, False]

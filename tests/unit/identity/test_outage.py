"""Who may call while the registry is away: what was known goes on to hold, what was refused stays refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from memory_server.core.identity import Identity, NewKey
from memory_server.ports import KeyRecord, TenantRecord
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.journal_registry import InMemoryRegistry
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from soma_contract.errors import (
    ComponentUnavailableError,
    CredentialsExpiredError,
    CredentialsInvalidError,
    TenantForbiddenError,
)


class HandClock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Registry(InMemoryRegistry):
    """The twin, which can go away: silently, or with an error."""

    away: str = ""
    asked: int = 0

    async def get_key(self, key_id: str) -> KeyRecord | None:
        await self._wait()
        return await super().get_key(key_id)

    async def get_tenant(self, name: str) -> TenantRecord | None:
        await self._wait()
        return await super().get_tenant(name)

    async def _wait(self) -> None:
        self.asked += 1
        if self.away == "silent":
            await asyncio.Event().wait()
        if self.away == "down":
            raise ComponentUnavailableError(component="postgres")


class Desk:
    """An identity with one key, on a clock that goes when told."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.registry = Registry(InMemoryTruth(SystemClock(), analysis()))
        self.identity = Identity(self.registry, self.clock)

    async def key(self, ttl_s: float | None = None) -> NewKey:
        """A key of tenant acme."""
        await self.identity.create_tenant("acme")
        ends = None if ttl_s is None else self.clock.now() + timedelta(seconds=ttl_s)
        return await self.identity.create_key(["acme"], ["memory:*"], expires_at=ends)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("away", ["silent", "down"])
async def test_a_known_key_goes_on_to_be_known(desk: Desk, away: str) -> None:
    key = await desk.key()
    caller = await desk.identity.authenticate(key.token)
    desk.registry.away = away
    desk.clock.seconds += 3_600
    assert caller == await desk.identity.authenticate(key.token)


async def test_the_next_caller_does_not_wait_for_a_registry_that_was_just_away(desk: Desk) -> None:
    key = await desk.key()
    await desk.identity.authenticate(key.token)
    desk.registry.away = "down"
    desk.clock.seconds += 60
    await desk.identity.authenticate(key.token)
    asked = desk.registry.asked
    await desk.identity.authenticate(key.token)
    assert asked == desk.registry.asked
    desk.clock.seconds += 2
    await desk.identity.authenticate(key.token)
    assert asked + 1 == desk.registry.asked


@pytest.mark.parametrize("away", ["silent", "down"])
async def test_an_unknown_key_is_told_that_the_registry_is_away_not_that_it_is_wrong(desk: Desk, away: str) -> None:
    desk.registry.away = away
    with pytest.raises(ComponentUnavailableError) as told:
        await desk.identity.authenticate(f"soma_{'0' * 16}_{'x' * 43}")
    assert "postgres" == told.value.metadata["component"]


async def test_a_day_of_outage_is_too_long(desk: Desk) -> None:
    key = await desk.key()
    await desk.identity.authenticate(key.token)
    desk.registry.away = "down"
    desk.clock.seconds += 86_400
    with pytest.raises(ComponentUnavailableError):
        await desk.identity.authenticate(key.token)


async def test_a_key_ends_also_in_an_outage(desk: Desk) -> None:
    key = await desk.key(ttl_s=60)
    await desk.identity.authenticate(key.token)
    desk.registry.away = "down"
    desk.clock.seconds += 61
    with pytest.raises(CredentialsExpiredError):
        await desk.identity.authenticate(key.token)


async def test_a_key_refused_once_is_not_remembered_as_good_in_a_later_outage(desk: Desk) -> None:
    key = await desk.key()
    await desk.identity.authenticate(key.token)
    await desk.registry.revoke_key(key.record.key_id)  # by another process
    desk.clock.seconds += 60
    with pytest.raises(CredentialsInvalidError):
        await desk.identity.authenticate(key.token)
    desk.registry.away = "down"
    with pytest.raises(ComponentUnavailableError):
        await desk.identity.authenticate(key.token)


async def test_a_tenant_admitted_before_is_admitted_in_an_outage_and_no_other(desk: Desk) -> None:
    await desk.identity.create_tenant("acme")
    await desk.identity.admit("acme")
    with pytest.raises(TenantForbiddenError):
        await desk.identity.admit("globex")
    desk.registry.away = "down"
    desk.clock.seconds += 60
    await desk.identity.admit("acme")
    with pytest.raises(ComponentUnavailableError):
        await desk.identity.admit("globex")

"""Batches on the brain: what has a write waiting is refused, what is wrong keeps its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from brain_server.core.batching import Batching
from soma_contract.errors import ComponentUnavailableError, FieldViolationError, SomaError
from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Command, Memory, Remember, Written
from soma_contract.tenant import Tenant, admin_tenant

TENANT = admin_tenant("acme", reason="tests")


@dataclass
class Pending:
    """Pending writes that touch some places."""

    places: frozenset[str] = frozenset()

    def any_touching(self, tenant: Tenant, place: str) -> bool:
        return place in self.places

    async def touching(self, tenant: Tenant, *places: str) -> list[tuple[Command, datetime]]:
        return []

    async def all_of(self, tenant: Tenant) -> list[tuple[Command, datetime]]:
        return []

    async def newest(self, tenant: Tenant, most: int) -> list[tuple[Command, datetime]]:
        return []

    def count(self, tenant: Tenant) -> int:
        return len(self.places)

    def oldest_at(self, tenant: Tenant) -> datetime | None:
        return None

    async def noted(self) -> None:
        pass


@dataclass
class LongTerm:
    """Stores everything it is given."""

    stored: list[str] = field(default_factory=list)

    async def remember_batch(
        self, tenant: Tenant, commands: Sequence[Remember], *, atomic: bool
    ) -> list[Written | SomaError]:
        self.stored += [command.memory.text for command in commands]
        return [Written(command.memory, 1) for command in commands]


async def test_what_has_a_write_waiting_is_refused_and_the_rest_is_stored() -> None:
    waiting = keyed_memory_id("default", "busy")
    long_term = LongTerm()
    wrong = FieldViolationError.at("memory.text", "is wrong")
    items: list[Remember | SomaError] = [
        Remember(Memory(text="a")),
        Remember(Memory(text="b", key="busy")),
        wrong,
        Remember(Memory(text="d")),
    ]
    answers = await Batching(Pending(frozenset({waiting})), long_term).remember(TENANT, items, atomic=False)
    assert ["a", "d"] == long_term.stored
    assert [Written, ComponentUnavailableError, FieldViolationError, Written] == [type(one) for one in answers]
    refused = answers[1]
    assert isinstance(refused, ComponentUnavailableError)
    assert ({"component": "outbox"}, 1.0) == (refused.metadata, refused.retry_after_s)


async def test_an_atomic_batch_is_refused_whole() -> None:
    waiting = keyed_memory_id("default", "busy")
    long_term = LongTerm()
    items = [Remember(Memory(text="a")), Remember(Memory(text="b", key="busy"))]
    with pytest.raises(ComponentUnavailableError):
        await Batching(Pending(frozenset({waiting})), long_term).remember(TENANT, items, atomic=True)
    with pytest.raises(FieldViolationError) as wrong:
        await Batching(Pending(), long_term).remember(TENANT, [items[0], Remember(Memory())], atomic=True)
    assert ["items[1].memory.text"] == [violation.field for violation in wrong.value.violations]
    assert [] == long_term.stored

"""A stream of writes outlives its connections and stores nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from soma_client import Memory, SomaClient
from soma_contract.errors import CredentialsInvalidError, FieldViolationError
from tests.unit.client.shelf import Shelf

TEXTS = [f"memory {number}" for number in range(40)]


async def test_every_item_gets_its_outcome(shelf: Shelf, soma: SomaClient) -> None:
    outcomes = {outcome.position: outcome async for outcome in soma.remember_many(TEXTS, in_flight=4)}

    assert [outcomes[place].remembered.memory.text for place in range(40)] == TEXTS  # type: ignore[union-attr]
    assert len(shelf.stored) == 40


async def test_a_refused_item_does_not_end_the_stream(soma: SomaClient) -> None:
    items: list[str | Memory] = ["tea", Memory(text="tea", tags=("",)), "coffee"]

    outcomes = {outcome.position: outcome async for outcome in soma.remember_many(items)}

    refused = outcomes[1].error
    assert isinstance(refused, FieldViolationError)
    assert [violation.field for violation in refused.violations] == ["memory.tags[0]"]
    assert [outcomes[place].error for place in (0, 2)] == [None, None]


@pytest.mark.parametrize("misfortune", ["break_after", "drain_after"])
async def test_a_stream_that_ends_early_is_taken_up_again_and_nothing_is_stored_twice(
    shelf: Shelf, soma: SomaClient, misfortune: str
) -> None:
    setattr(shelf, misfortune, 7)

    outcomes = [outcome async for outcome in soma.remember_many(TEXTS, in_flight=5)]

    assert sorted(outcome.position for outcome in outcomes) == list(range(40))
    assert [outcome.error for outcome in outcomes] == [None] * 40
    assert len(shelf.calls) >= 2
    assert len(shelf.stored) == len(set(shelf.stored)) == 40


async def test_what_cannot_pass_ends_the_stream(soma: SomaClient) -> None:
    with pytest.raises(CredentialsInvalidError):
        _ = [outcome async for outcome in soma.bound(key="soma_0_wrong").remember_many(TEXTS)]


async def test_items_may_come_slowly_and_their_source_may_fail(shelf: Shelf, soma: SomaClient) -> None:
    async def source() -> AsyncIterator[str]:
        yield "tea"
        yield "coffee"
        raise OSError("the file ended in the middle of a line")

    stream = soma.remember_many(source())
    positions = {(await anext(stream)).position, (await anext(stream)).position}
    with pytest.raises(OSError, match="middle of a line"):
        await anext(stream)

    assert positions == {0, 1}
    assert len(shelf.stored) == 2


async def test_leaving_early_stops_the_stream(shelf: Shelf, soma: SomaClient) -> None:
    stream = soma.remember_many(TEXTS, in_flight=2)
    first = await anext(stream)
    await stream.aclose()

    assert first.position == 0
    assert len(shelf.stored) <= 4

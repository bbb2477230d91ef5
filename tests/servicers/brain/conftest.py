"""A brain for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from brain_server.stores.inmemory.entries import InMemoryOutbox
from brain_server.stores.inmemory.items import InMemorySessions
from tests.servicers.brain.kit import Brain, Shelf


@pytest.fixture(autouse=True)
def _testing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the hashing embedder."""
    monkeypatch.setenv("SOMA_TESTING", "1")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest_asyncio.fixture(loop_scope="session")
async def brain(shelf: Shelf) -> AsyncIterator[Brain]:
    opened = await Brain.opened(shelf, InMemoryOutbox(), InMemorySessions())
    async with opened.delivery:
        yield opened

"""A shelf, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from soma_client import SomaClient
from tests.unit.client.shelf import KEY, Shelf, served


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest_asyncio.fixture(loop_scope="session")
async def address(shelf: Shelf) -> AsyncIterator[str]:
    async with served(shelf) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def soma(address: str) -> AsyncIterator[SomaClient]:
    async with SomaClient.connect(address, key=KEY, tenant="a", own_connection=True) as client:
        yield client

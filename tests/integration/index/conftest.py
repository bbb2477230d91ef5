"""A workshop for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.index.workshop import Workshop, open_workshop
from tests.support.stores import FreshDatabase


@pytest_asyncio.fixture(loop_scope="session")
async def workshop(
    fresh_database: FreshDatabase, milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Workshop]:
    """An index pipeline on a database and collections of its own."""
    monkeypatch.setenv("SOMA_TESTING", "1")
    async with open_workshop(fresh_database.url, fresh_database.admin_url, milvus_uri) as opened:
        yield opened
        for collection in await opened.queue.collections():
            await opened.index.drop(collection.name)

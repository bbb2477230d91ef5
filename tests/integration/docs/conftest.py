"""A stack for the documents' commands: some of them create tenants by fixed names, one ends a server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from soma_embedded.stack import EmbeddedStack
from tests.support.stack import RANDOM_PORTS
from tests.support.stores import data_directory


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def documented() -> AsyncIterator[EmbeddedStack]:
    """A running stack of a page's own, with a home directory in which it is where the pages say."""
    with data_directory() as path:
        async with EmbeddedStack(path / ".soma", RANDOM_PORTS) as stack:
            yield stack

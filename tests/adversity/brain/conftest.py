"""A stack for the tests that kill: an embedder that costs nothing, so that the outage is what is tested."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio

from soma_embedded.stack import EmbeddedStack
from tests.support.stack import RANDOM_PORTS, Office, opened
from tests.support.stores import data_directory

SETTINGS = {"SOMA_EMBEDDER": "hashing", "SOMA_TESTING": "1"}


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def own_office() -> AsyncIterator[Office]:
    """A stack whose processes may be killed; every test leaves it ready."""
    with data_directory() as path:
        async with EmbeddedStack(path / "data", replace(RANDOM_PORTS, environment=SETTINGS)) as stack:
            opening = await opened(stack)
            try:
                yield opening
            finally:
                await opening.brain.close()
                await opening.memory.close()

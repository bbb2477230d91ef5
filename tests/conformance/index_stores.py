"""What the tests of the VectorIndex port share: the index under test, collections and rows."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from memory_server.ports import Collection, IndexRow, VectorIndex
from memory_server.stores.inmemory.index import InMemoryIndex
from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from soma_contract.memory import Memory
from soma_contract.tenant import Tenant, admin_tenant

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSION = 8
ACME = admin_tenant("acme", reason="tests")
GLOBEX = admin_tenant("globex", reason="tests")


SERVER_URI = os.environ.get("SOMA_TEST_MILVUS_URI", "")
"""A Milvus server to run the same tests against, beside the twin and the embedded engine."""

INDEXES = ["inmemory", pytest.param("milvus", marks=pytest.mark.stores), *(["server"] if SERVER_URI else [])]


@pytest.fixture(params=INDEXES)
def index_address(request: pytest.FixtureRequest) -> str:
    """Where the index under test is; empty for the twin.  Not a coroutine, so that only Milvus starts stores."""
    if request.param == "inmemory":
        return ""
    return SERVER_URI if request.param == "server" else str(request.getfixturevalue("milvus_uri"))


@pytest_asyncio.fixture(loop_scope="session")
async def index(index_address: str) -> AsyncIterator[VectorIndex]:
    """The twin and the real index, one after the other."""
    if not index_address:
        yield InMemoryIndex()
        return
    async with MilvusIndex(MilvusAddress.parse(index_address), strong=True) as milvus:
        yield milvus


@pytest_asyncio.fixture(loop_scope="session")
async def collection(index: VectorIndex, collection_prefix: str) -> AsyncIterator[Collection]:
    """An empty collection of the index, ready to be written."""
    fresh = await opened(index, f"{collection_prefix}rows")
    yield fresh
    await index.drop(fresh.name)


async def opened(index: VectorIndex, name: str, dimension: int = DIMENSION) -> Collection:
    """Make a collection the way the indexer does and return its live epoch."""
    collection = Collection(name, 1, "test-profile", dimension)
    while await index.ensure(collection):
        collection = replace(collection, epoch=collection.epoch + 1)
    return collection


def memory_id(number: int) -> str:
    """The memory id of a number, the same in every run."""
    return str(uuid.UUID(int=(7 << 76) | (2 << 62) | number))


def direction(angle: float, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """A unit vector in the plane of the first two axes; cosines are cosines of angle differences."""
    vector = np.zeros(dimension, dtype=np.float32)
    vector[0], vector[1] = np.cos(angle), np.sin(angle)
    return vector


def row(
    number: int,
    text: str = "",
    *,
    tenant: Tenant = ACME,
    angle: float = 0.0,
    version: int = 1,
    memory: Memory | None = None,
) -> IndexRow:
    """A row of the index with the id of ``number``."""
    held = replace(memory or Memory(), memory_id=memory_id(number), text=text, version=version)
    return IndexRow(tenant, held, version, direction(angle), text)

"""Fixtures over the real stores: one stack of processes a session, a fresh corner of it for each test."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio

from soma_embedded import EmbeddedStores

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class FreshDatabase:
    """An empty database of its own."""

    name: str
    url: str
    """As the application role, bound by row-level security."""
    admin_url: str
    """As the owner, for migrations."""


@contextlib.contextmanager
def data_directory() -> Iterator[Path]:
    """A temporary directory that other users may enter and that is gone afterwards, whoever owns what is in it."""
    path = Path(tempfile.mkdtemp(prefix="soma-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stores() -> AsyncIterator[EmbeddedStores]:
    """Postgres, Redis and Milvus on random ports; whoever kills or wipes one must leave it ready."""
    with data_directory() as path:
        async with EmbeddedStores(path / "data") as running:
            yield running


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_database(stores: EmbeddedStores) -> AsyncIterator[FreshDatabase]:
    """An empty database, dropped after the test."""
    name = f"test_{next(_numbers)}"
    url, admin_url = await stores.create_database(name)
    try:
        yield FreshDatabase(name, url, admin_url)
    finally:
        await stores.ready("postgres")
        await stores.drop_database(name)


@pytest.fixture
def redis_url(stores: EmbeddedStores) -> str:
    """A Redis database that no other test of the last 255 has used."""
    parts = urlsplit(stores.redis_url)
    return urlunsplit(parts._replace(path=f"/{next(_numbers) % 255 + 1}"))


@pytest.fixture
def milvus_uri(stores: EmbeddedStores) -> str:
    """The address of the session's Milvus; give each test's collections a prefix of `collection_prefix`."""
    return stores.milvus_uri


@pytest.fixture
def collection_prefix() -> str:
    """A prefix of collection names that no other test uses."""
    return f"test_{next(_numbers)}_"

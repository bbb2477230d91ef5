"""Fixtures over the real stores: one stack of processes a session, a fresh corner of it for each test."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio
from redis import Redis

from soma_embedded import EmbeddedStores
from tests.support.elsewhere import Elsewhere, composed_stores, in_containers

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


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Elsewhere | None]:
    """The stores that the environment names or that a container engine runs; None where tests run on embedded ones."""
    if (named := Elsewhere.named(os.environ)) is not None:
        yield named
    elif in_containers(os.environ):
        with composed_stores() as composed:
            yield composed
    else:
        yield None


@pytest.fixture(scope="session")
def backing(elsewhere: Elsewhere | None, request: pytest.FixtureRequest) -> Elsewhere | EmbeddedStores:
    """The stores for tests that only use them; the embedded ones start when they are needed."""
    if elsewhere is not None:
        return elsewhere
    embedded: EmbeddedStores = request.getfixturevalue("stores")
    return embedded


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_database(backing: Elsewhere | EmbeddedStores) -> AsyncIterator[FreshDatabase]:
    """An empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:8]}" if isinstance(backing, Elsewhere) else f"test_{next(_numbers)}"
    url, admin_url = await backing.create_database(name)
    try:
        yield FreshDatabase(name, url, admin_url)
    finally:
        if isinstance(backing, EmbeddedStores):
            await backing.ready("postgres")
        await backing.drop_database(name)


@pytest.fixture
def redis_url(backing: Elsewhere | EmbeddedStores) -> str:
    """An empty Redis database of its own; stores elsewhere have but 16, so that theirs is emptied first."""
    parts, many = urlsplit(backing.redis_url), isinstance(backing, EmbeddedStores)
    url = urlunsplit(parts._replace(path=f"/{next(_numbers) % (255 if many else 15) + 1}"))
    if not many:
        with Redis.from_url(url) as redis:
            redis.flushdb()
    return url


@pytest.fixture
def milvus_uri(backing: Elsewhere | EmbeddedStores) -> str:
    """The address of the session's Milvus; give each test's collections a prefix of `collection_prefix`."""
    return backing.milvus_uri


@pytest.fixture
def collection_prefix() -> str:
    """A prefix of collection names that no other test uses, on stores that other runs may use too."""
    return f"test_{uuid.uuid4().hex[:8]}_"

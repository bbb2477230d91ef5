"""What the tests of the ports on the truth share: journal, recall source, index queue and registry of one store."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from memory_server.ports import IndexQueue, Journal, RecallSource, Registry, StoredVectors
from memory_server.stores.analysing import analysis
from memory_server.stores.inmemory.journal import InMemoryJournal
from memory_server.stores.inmemory.journal_index_queue import InMemoryIndexQueue
from memory_server.stores.inmemory.journal_recall_source import InMemoryRecallSource
from memory_server.stores.inmemory.journal_registry import InMemoryRegistry
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from memory_server.stores.postgres.index_queue import PostgresIndexQueue
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import Pools, open_pools
from memory_server.stores.postgres.recall_source import PostgresRecallSource
from memory_server.stores.postgres.registry import PostgresRegistry
from memory_server.stores.postgres.term_stats import TermStatistics
from soma_contract.completing import completed
from soma_contract.errors import SomaError
from soma_contract.memory import Memory, Remember, Written
from soma_contract.tenant import Tenant, admin_tenant
from soma_embedded import EmbeddedStores
from tests.support.elsewhere import Elsewhere

PROFILE = "test-profile"
DIMENSION = 8
_names = itertools.count(1)


class Truth(Protocol):
    """One store under test."""

    journal: Journal
    recall: RecallSource
    queue: IndexQueue
    registry: Registry

    async def pass_time(self, seconds: float) -> None:
        """Let time go by, as far as the store can tell."""
        ...

    async def count_terms(self) -> None:
        """Have all changes of the corpus counted."""
        ...


@dataclass
class SteppedClock:
    """A clock that goes only when it is told to, but never shows the same moment twice."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0

    def now(self) -> datetime:
        """The wall-clock time."""
        self.moment += timedelta(microseconds=1)
        return self.moment

    def monotonic(self) -> float:
        """Seconds; every look is far enough from the last that nothing stays cached."""
        self.seconds += 10.0
        return self.seconds


class TruthInMemory:
    """The twins."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        truth = InMemoryTruth(self.clock, analysis())
        self.journal: Journal = InMemoryJournal(truth)
        self.recall: RecallSource = InMemoryRecallSource(truth)
        self.queue: IndexQueue = InMemoryIndexQueue(truth)
        self.registry: Registry = InMemoryRegistry(truth)

    async def pass_time(self, seconds: float) -> None:
        """Step the clock."""
        self.clock.moment += timedelta(seconds=seconds)

    async def count_terms(self) -> None:
        """They are counted at once."""


class TruthInPostgres:
    """The real store.  Time passes by making everything in it older."""

    def __init__(self, pools: Pools, journal: Journal, admin: asyncpg.Connection) -> None:
        self.pools = pools
        self.admin = admin
        self.journal: Journal = journal
        self.recall: RecallSource = PostgresRecallSource(pools)
        self.queue: IndexQueue = PostgresIndexQueue(pools, analysis(), SteppedClock())
        self.registry: Registry = PostgresRegistry(pools)

    async def pass_time(self, seconds: float) -> None:
        """Move all times of rows and jobs into the past."""
        by = timedelta(seconds=seconds)
        for table, columns in (
            ("memory_items", ("created_at", "updated_at", "expires_at")),
            ("index_jobs", ("due_at", "queued_at", "leased_until", "moved_at")),
        ):
            moved = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
            await self.admin.execute(f"UPDATE {table} SET {moved}", by)

    async def count_terms(self) -> None:
        """Fold until there is nothing left."""
        while await TermStatistics(self.pools.indexing).fold():
            pass


@dataclass(frozen=True)
class Database:
    """A migrated database: as the application and as an administrator."""

    url: str
    admin_url: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def truth_database(backing: Elsewhere | EmbeddedStores) -> Database:
    """One migrated database for the session."""
    database = await made_database(backing)
    await migrate(database.admin_url)
    return database


async def made_database(backing: Elsewhere | EmbeddedStores) -> Database:
    """An empty database."""
    return Database(*await backing.create_database(f"truth_{uuid.uuid4().hex[:8]}"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def truth_in_postgres(truth_database: Database) -> AsyncIterator[TruthInPostgres]:
    """The real store on the session's database."""
    async with AsyncExitStack() as stack:
        pools = await stack.enter_async_context(open_pools(truth_database.url))
        journal = await stack.enter_async_context(open_journal(pools, analysis()))
        admin = await asyncpg.connect(truth_database.admin_url)
        stack.push_async_callback(admin.close)
        yield TruthInPostgres(pools, journal, admin)


@pytest.fixture(params=["inmemory", pytest.param("postgres", marks=pytest.mark.stores)])
def truth_name(request: pytest.FixtureRequest) -> str:
    """Which store; not a coroutine, so that only Postgres starts one."""
    if request.param == "postgres":
        request.getfixturevalue("truth_in_postgres")
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def truth(truth_name: str, request: pytest.FixtureRequest) -> Truth:
    """The twin and the real store, one after the other, without the jobs of other tests."""
    if truth_name == "inmemory":
        return TruthInMemory()
    real: TruthInPostgres = request.getfixturevalue("truth_in_postgres")
    for table in ("index_jobs", "index_collections", "embedding_profiles", "tenants", "api_keys"):
        await real.admin.execute(f"DELETE FROM {table}")
    return TruthInPostgres(real.pools, real.journal, real.admin)


@pytest.fixture
def tenant() -> Tenant:
    """A tenant that no other test uses."""
    return admin_tenant(f"acme-{next(_names)}", reason="tests")


@pytest.fixture
def stranger() -> Tenant:
    """Another one."""
    return admin_tenant(f"globex-{next(_names)}", reason="tests")


def remember(text: str = "", **fields: object) -> Remember:
    """A Remember of a memory with these fields; those of the command itself are told apart by name."""
    options = {name: fields.pop(name) for name in ("ttl_s", "if_match", "if_absent", "request_id") if name in fields}
    memory = Memory(text=text, **fields)  # type: ignore[arg-type]
    return completed(Remember(memory, **options))  # type: ignore[arg-type]


async def stored(truth: Truth, tenant: Tenant, *commands: Remember) -> list[Memory]:
    """Write memories that must be taken, and return them as answered."""
    answers = await truth.journal.write(tenant, commands)
    return [written(answer).memory or Memory() for answer in answers]


def written(answer: Written | SomaError) -> Written:
    """The answer, which must not be a refusal."""
    if isinstance(answer, SomaError):
        raise answer
    return answer


def vectors(angle: float = 0.0) -> StoredVectors:
    """Vectors of a small embedder: a unit vector in a plane, one sentence, two tokens."""
    dense = np.zeros(DIMENSION, np.float32)
    dense[0], dense[1] = np.cos(angle), np.sin(angle)
    tokens = np.arange(128, dtype=np.int8).reshape(2, 64)
    return StoredVectors(dense, np.full((1, DIMENSION), 7, np.int8), tokens, np.array([3, 5], np.int32))

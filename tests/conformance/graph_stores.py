"""What the tests of links share: the graph store under test beside its journal, memories, links."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from memory_server.ports import GraphStore, Journal
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.graph_store import InMemoryGraphStore
from memory_server.stores.inmemory.journal import InMemoryJournal
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from memory_server.stores.postgres.graph_store import open_graph_store
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import Pools, PoolSizes, open_pools
from soma_contract.errors import SomaError
from soma_contract.links import Link, LinkCommand, LinkWritten, MakeLink
from soma_contract.memory import Memory, Remember, Target
from soma_contract.tenant import Tenant, admin_tenant
from tests.support.stores import FreshDatabase

ACME = admin_tenant("acme", reason="tests")
GLOBEX = admin_tenant("globex", reason="tests")


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph store and the journal of the memories it links; ``pools`` only on Postgres."""

    store: GraphStore
    journal: Journal
    pools: Pools | None = None

    async def remember(self, *ids: str, tenant: Tenant = ACME) -> None:
        """Make memories of these ids, each with its id as text."""
        commands = [Remember(Memory(memory_id=one, text=one)) for one in ids]
        for answer in await self.journal.write(tenant, commands):
            assert not isinstance(answer, SomaError)

    async def write(self, command: LinkCommand, *, tenant: Tenant = ACME) -> LinkWritten:
        """Commit one command; a refusal is raised."""
        (answer,) = await self.store.write(tenant, [command])
        if isinstance(answer, SomaError):
            raise answer
        return answer

    async def link(
        self, source: str, target: str, relation: str = "related", strength: float = 1.0, *, tenant: Tenant = ACME
    ) -> Link:
        """Make one link."""
        written = await self.write(MakeLink(named(source), named(target), relation, strength), tenant=tenant)
        assert written.link is not None
        return written.link


def named(memory_id: str) -> Target:
    """The memory of an id."""
    return Target(memory_id=memory_id)


def memory_id(number: int) -> str:
    """The memory id of a number, the same in every run and in the numbers' order."""
    return str(uuid.UUID(int=(7 << 76) | (2 << 62) | number))


def ids(count: int) -> list[str]:
    """So many memory ids, in order."""
    return [memory_id(number) for number in range(1, count + 1)]


async def on_postgres(stack: AsyncExitStack, database: FreshDatabase) -> Graph:
    """A graph on a database of its own."""
    await migrate(database.admin_url)
    pools = await stack.enter_async_context(open_pools(database.url, PoolSizes(6, 1, 1)))
    journal = await stack.enter_async_context(open_journal(pools, analysis()))
    return Graph(await stack.enter_async_context(open_graph_store(pools)), journal, pools)


def in_memory() -> Graph:
    """A graph in memory."""
    truth = InMemoryTruth(SystemClock(), analysis())
    return Graph(InMemoryGraphStore(truth), InMemoryJournal(truth))


@pytest.fixture(params=["inmemory", pytest.param("postgres", marks=pytest.mark.stores)])
def graph_database(request: pytest.FixtureRequest) -> FreshDatabase | None:
    """Where the store under test is; None for the twin.  Not a coroutine, so that only Postgres starts stores."""
    return None if request.param == "inmemory" else request.getfixturevalue("fresh_database")


@pytest_asyncio.fixture(loop_scope="session")
async def graph(graph_database: FreshDatabase | None) -> AsyncIterator[Graph]:
    """The twin and the real store, one after the other."""
    if graph_database is None:
        yield in_memory()
        return
    async with AsyncExitStack() as stack:
        yield await on_postgres(stack, graph_database)


def ends(links: Sequence[Link]) -> list[tuple[str, str, str]]:
    """What links are known by."""
    return [(link.source_id, link.relation, link.target_id) for link in links]

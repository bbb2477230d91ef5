"""Graphs that must not be read whole: every call is back within its deadline, right or partial."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import combinations

import pytest

from memory_server.core.traversing import BUDGET_S, Traversing
from memory_server.stores.clock import SystemClock
from soma_contract.links import (
    Direction,
    GraphSummary,
    MakeLink,
    MemoryPath,
    Neighbor,
    NeighborQuery,
    PathQuery,
    RankQuery,
    Reach,
    SubgraphQuery,
)
from tests.conformance.graph_stores import ACME, Graph, ids, named, on_postgres
from tests.support.big_graphs import CHAIN, HUB, memory_id, plant
from tests.support.stores import FreshDatabase

pytestmark = pytest.mark.stores
DEADLINE_S = 5.0
HUB_LINKS = 100_000


@asynccontextmanager
async def traversing(database: FreshDatabase, budget_s: float = BUDGET_S) -> AsyncIterator[tuple[Graph, Traversing]]:
    async with AsyncExitStack() as stack:
        graph = await on_postgres(stack, database)
        yield graph, Traversing(graph.store, graph.journal, SystemClock(), budget_s)


class Answer:
    """What a call answered, and that it did so in time."""

    def __init__(self) -> None:
        self.neighbors: list[Neighbor] = []
        self.paths: list[MemoryPath] = []
        self.summary = GraphSummary(spent="no summary came")
        self.memories = 0
        self.links = 0

    @classmethod
    async def of(cls, frames: AsyncIterator[object]) -> Answer:
        answer, started = cls(), time.monotonic()
        async for frame in frames:
            match frame:
                case GraphSummary():
                    answer.summary = frame
                case MemoryPath():
                    answer.paths.append(frame)
                case tuple():
                    answer.links += len(frame)
                    answer.neighbors += [one for one in frame if isinstance(one, Neighbor)]
                case _:
                    answer.memories += len(frame.memories)  # type: ignore[attr-defined]
        assert time.monotonic() - started < DEADLINE_S
        return answer


async def test_a_hub_of_100_000_links_answers_in_time(fresh_database: FreshDatabase) -> None:
    async with traversing(fresh_database) as (_, walk):
        await plant(fresh_database.admin_url, ACME, HUB_LINKS + 1, HUB)
        hub, leaf, other = named(memory_id(1)), named(memory_id(2)), named(memory_id(HUB_LINKS))

        nearest = await Answer.of(walk.neighbors(ACME, NeighborQuery(hub, limit=100), deadline_s=DEADLINE_S))
        assert [memory_id(number) for number in range(2, 102)] == [one.memory_id for one in nearest.neighbors]
        assert not nearest.summary.partial

        many = await Answer.of(walk.neighbors(ACME, NeighborQuery(hub, limit=10_000), deadline_s=DEADLINE_S))
        assert (10_000, False) == (len(many.neighbors), many.summary.partial)

        through = await Answer.of(walk.neighbors(ACME, NeighborQuery(leaf, 3, limit=10_000), deadline_s=DEADLINE_S))
        assert through.summary.partial
        assert memory_id(1) == through.neighbors[0].memory_id

        path = await Answer.of(walk.paths(ACME, PathQuery(leaf, other), deadline_s=DEADLINE_S))
        assert [(memory_id(2), memory_id(1), memory_id(HUB_LINKS))] == [one.memory_ids for one in path.paths]
        assert not path.summary.partial, "both ends were asked before the hub"

        drawn = await Answer.of(walk.subgraph(ACME, SubgraphQuery((hub,), 2), deadline_s=DEADLINE_S))
        assert (100, True) == (drawn.memories, drawn.summary.partial)
        # Their links are read last, and left out where the walk has taken the whole budget.
        assert drawn.links in (0, 99)

        started = time.monotonic()
        ranked, summary = await walk.rank(ACME, RankQuery((leaf,)), deadline_s=DEADLINE_S)
        assert time.monotonic() - started < DEADLINE_S
        assert summary.partial
        assert {memory_id(1), memory_id(2)} == {one.memory_id for one in ranked[:2]}


async def test_a_chain_of_10_000_memories_is_walked_only_as_far_as_asked(fresh_database: FreshDatabase) -> None:
    async with traversing(fresh_database, budget_s=DEADLINE_S) as (_, walk):
        await plant(fresh_database.admin_url, ACME, 10_000, CHAIN)

        def query(source: int, target: int) -> PathQuery:
            return PathQuery(named(memory_id(source)), named(memory_id(target)), max_length=10)

        near = await Answer.of(walk.paths(ACME, query(5_000, 5_010), deadline_s=DEADLINE_S))
        far = await Answer.of(walk.paths(ACME, query(1, 10_000), deadline_s=DEADLINE_S))
        back = await Answer.of(walk.neighbors(ACME, NeighborQuery(named(memory_id(5_000)), 3), deadline_s=DEADLINE_S))
        assert [tuple(memory_id(number) for number in range(5_000, 5_011))] == [one.memory_ids for one in near.paths]
        assert 10 * -math.log(0.9) == pytest.approx(near.paths[0].cost)
        assert ([], False) == (far.paths, far.summary.partial)
        assert far.summary.visited < 50
        assert {memory_id(number) for number in range(4_997, 5_004)} - {memory_id(5_000)} == {
            one.memory_id for one in back.neighbors
        }


async def test_a_clique_of_20_gives_its_cheapest_paths_in_time(fresh_database: FreshDatabase) -> None:
    async with traversing(fresh_database, budget_s=DEADLINE_S) as (graph, walk):
        members = ids(20)
        await graph.remember(*members)
        strength: Callable[[int, int], float] = lambda a, b: 0.1 + 0.8 * ((a * 7 + b * 13) % 20) / 20  # noqa: E731
        commands = [
            MakeLink(named(members[a]), named(members[b]), strength=strength(a, b))
            for a, b in combinations(range(20), 2)
        ]
        await graph.store.write(ACME, commands)
        query = PathQuery(named(members[0]), named(members[1]), 10, 10)
        answer = await Answer.of(walk.paths(ACME, query, deadline_s=DEADLINE_S))
        costs = [path.cost for path in answer.paths]
        assert 10 == len({path.memory_ids for path in answer.paths})
        assert sorted(costs) == costs
        all_of_them = await Answer.of(
            walk.neighbors(ACME, NeighborQuery(named(members[0]), 3, Reach(Direction.BOTH)), deadline_s=DEADLINE_S)
        )
        assert {1} == {one.depth for one in all_of_them.neighbors}
        assert 19 == len(all_of_them.neighbors)

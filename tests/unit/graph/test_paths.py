"""Walking graphs is equal to NetworkX on graphs of any shape."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import TypeVar

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_server.core.traversing import Traversing
from memory_server.stores.clock import SystemClock
from soma_contract.links import (
    Direction,
    GraphSummary,
    Link,
    MakeLink,
    MemoryPath,
    Neighbor,
    NeighborQuery,
    PathQuery,
    RankQuery,
    Reach,
    SubgraphQuery,
)
from tests.conformance.graph_stores import ACME, Graph, ids, in_memory, named

GRAPHS = int(os.environ.get("SOMA_TEST_GRAPHS", "2000" if os.environ.get("CI") == "true" else "200"))
"""How many random graphs each property is tried on."""
PATIENT_S = 60.0
RELATIONS = ("related", "supports")

property_test = settings(
    max_examples=GRAPHS, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
_Frame = TypeVar("_Frame")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, str, float]]]:
    """A number of memories, and links (source, target, relation, strength) between them."""
    count = draw(st.integers(2, 14))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    strengths = st.one_of(st.sampled_from([1.0, 0.5, 0.25]), st.floats(0.01, 1.0))
    links = st.tuples(ends, st.sampled_from(RELATIONS), strengths).map(lambda one: (*one[0], one[1], one[2]))
    return count, draw(st.lists(links, max_size=40, unique_by=lambda one: one[:3]))


directions = st.sampled_from(list(Direction))


async def built(count: int, links: list[tuple[int, int, str, float]]) -> tuple[Traversing, list[str]]:
    graph: Graph = in_memory()
    memories = ids(count)
    await graph.remember(*memories)
    commands = [MakeLink(named(memories[a]), named(memories[b]), relation, s) for a, b, relation, s in links]
    await graph.store.write(ACME, commands)
    return Traversing(graph.store, graph.journal, SystemClock(), PATIENT_S), memories


def oracle(memories: list[str], links: list[tuple[int, int, str, float]], direction: Direction) -> nx.DiGraph[str]:
    """The same links as NetworkX has them: of several between two memories the strongest."""
    whole: nx.DiGraph[str] = nx.DiGraph()
    whole.add_nodes_from(memories)
    for a, b, _, strength in links:
        pairs = []
        if direction is not Direction.INCOMING:
            pairs.append((memories[a], memories[b]))
        if direction is not Direction.OUTGOING:
            pairs.append((memories[b], memories[a]))
        for one, other in pairs:
            if not whole.has_edge(one, other) or whole[one][other]["strength"] < strength:
                whole.add_edge(one, other, strength=strength, cost=-math.log(strength))
    return whole


async def collected(frames: AsyncIterator[_Frame]) -> list[_Frame]:
    return [frame async for frame in frames]


@property_test
@given(graphs(), directions, st.integers(1, 3))
def test_neighbours_are_those_of_networkx_nearest_and_strongest_first(
    drawn: tuple[int, list[tuple[int, int, str, float]]], direction: Direction, hops: int
) -> None:
    count, links = drawn

    async def asked() -> list[tuple[Neighbor, ...] | GraphSummary]:
        traversing, memories = await built(count, links)
        query = NeighborQuery(named(memories[0]), hops, Reach(direction))
        return await collected(traversing.neighbors(ACME, query))

    memories = ids(count)
    whole = oracle(memories, links, direction)
    depths = nx.single_source_shortest_path_length(whole, memories[0], cutoff=hops)
    best = {memories[0]: 1.0}
    for node in sorted(depths, key=lambda node: depths[node])[1:]:
        best[node] = max(
            best[before] * whole[before][node]["strength"]
            for before in whole.predecessors(node)
            if depths.get(before) == depths[node] - 1
        )
    expected = sorted((node for node in depths if depths[node]), key=lambda node: (depths[node], -best[node], node))

    *frames, summary = asyncio.run(asked())
    found = [neighbor for frame in frames if isinstance(frame, tuple) for neighbor in frame]
    assert isinstance(summary, GraphSummary)
    assert not summary.partial
    assert [(one, depths[one]) for one in expected] == [(one.memory_id, one.depth) for one in found]
    assert [best[one] for one in expected] == pytest.approx([one.strength for one in found])
    assert all(one.memory_id in (one.via.source_id, one.via.target_id) for one in found)


@property_test
@given(graphs(), directions, st.integers(1, 10), st.integers(1, 4))
def test_paths_are_those_of_networkx_cheapest_first(
    drawn: tuple[int, list[tuple[int, int, str, float]]], direction: Direction, max_length: int, max_paths: int
) -> None:
    count, links = drawn

    async def asked() -> list[MemoryPath | GraphSummary]:
        traversing, memories = await built(count, links)
        query = PathQuery(named(memories[0]), named(memories[1]), max_length, max_paths, Reach(direction))
        return await collected(traversing.paths(ACME, query))

    memories = ids(count)
    whole = oracle(memories, links, direction)
    expected = sorted(
        sum(whole[a][b]["cost"] for a, b in pairwise(path))
        for path in _simple_paths(whole, memories[0], memories[1], max_length, enough=2_000)
    )

    *found, summary = asyncio.run(asked())
    assert isinstance(summary, GraphSummary)
    paths = [one for one in found if isinstance(one, MemoryPath)]
    assert not summary.partial
    assert expected[:max_paths] == pytest.approx([one.cost for one in paths])
    for path in paths:
        assert (memories[0], memories[1]) == (path.memory_ids[0], path.memory_ids[-1])
        assert len(set(path.memory_ids)) == len(path.memory_ids)
        assert len(path.links) == len(path.memory_ids) - 1 <= max_length
        assert path.cost == pytest.approx(sum(-math.log(link.strength) for link in path.links))
        for (a, b), link in zip(pairwise(path.memory_ids), path.links, strict=True):
            assert {a, b} == {link.source_id, link.target_id}


def _simple_paths(whole: nx.DiGraph[str], source: str, target: str, max_length: int, *, enough: int) -> list[list[str]]:
    """All paths where there are few; else, cheapest first by NetworkX, those that are short enough."""
    paths: list[list[str]] = []
    for path in nx.all_simple_paths(whole, source, target, cutoff=max_length):
        paths.append(path)
        if len(paths) == enough:
            break
    else:
        return paths
    within: list[list[str]] = []
    if nx.has_path(whole, source, target):
        for path in nx.shortest_simple_paths(whole, source, target, weight="cost"):
            if len(path) - 1 <= max_length:
                within.append(path)
                if len(within) == 8:
                    break
    return within


@property_test
@given(graphs(), st.integers(1, 3), st.sampled_from([0.5, 0.85, 0.95]), st.integers(1, 3))
def test_ranks_are_the_pageranks_of_networkx_on_the_neighbourhood(
    drawn: tuple[int, list[tuple[int, int, str, float]]], radius: int, damping: float, starts: int
) -> None:
    count, links = drawn

    async def asked() -> dict[str, float]:
        traversing, memories = await built(count, links)
        query = RankQuery(tuple(named(one) for one in memories[:starts]), radius, damping, limit=1_000)
        ranked, summary = await traversing.rank(ACME, query)
        assert not summary.partial
        return {one.memory_id: one.score for one in ranked}

    memories = ids(count)
    chosen = memories[:starts]
    whole: nx.Graph[str] = nx.Graph()
    whole.add_nodes_from(memories)
    for a, b, _, strength in links:
        before = whole.get_edge_data(memories[a], memories[b], {"weight": 0.0})["weight"]
        whole.add_edge(memories[a], memories[b], weight=before + strength)
    near = nx.multi_source_dijkstra_path_length(whole, set(chosen), cutoff=radius, weight=lambda *_: 1)
    google = nx.google_matrix(
        whole.subgraph(near), alpha=damping, personalization=dict.fromkeys(chosen, 1.0), nodelist=list(near)
    )
    expected = dict(zip(near, _stationary(google), strict=True))

    found = asyncio.run(asked())
    assert set(expected) == set(found)
    assert expected == pytest.approx(found, abs=1e-6)
    assert sum(found.values()) == pytest.approx(1.0)


def _stationary(google: object) -> list[float]:
    matrix = np.asarray(google)
    scores = np.full(len(matrix), 1.0 / len(matrix))
    for _ in range(2_000):
        scores = scores @ matrix
    return [float(score) for score in scores]


@property_test
@given(graphs(), st.integers(0, 3))
def test_a_subgraph_is_the_neighbourhood_and_every_link_within(
    drawn: tuple[int, list[tuple[int, int, str, float]]], radius: int
) -> None:
    count, links = drawn

    async def asked() -> tuple[dict[str, int], set[tuple[str, str, str]]]:
        traversing, memories = await built(count, links)
        depths: dict[str, int] = {}
        sent: set[tuple[str, str, str]] = set()
        async for frame in traversing.subgraph(ACME, SubgraphQuery((named(memories[0]),), radius)):
            if isinstance(frame, GraphSummary):
                assert not frame.partial
            elif isinstance(frame, tuple):
                sent |= {(link.source_id, link.target_id, link.relation) for link in frame if isinstance(link, Link)}
            else:
                depths |= zip((memory.memory_id for memory in frame.memories), frame.depths, strict=True)
        return depths, sent

    memories = ids(count)
    whole = oracle(memories, links, Direction.BOTH)
    near = nx.single_source_shortest_path_length(whole, memories[0], cutoff=radius)
    expected = {
        (memories[a], memories[b], relation) for a, b, relation, _ in links if {memories[a], memories[b]} <= set(near)
    }
    assert (dict(near), expected) == asyncio.run(asked())

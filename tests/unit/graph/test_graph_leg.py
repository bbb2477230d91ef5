"""The graph leg of recall: off it costs nothing, late it is dropped and named, on it adds and boosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from memory_server.core.candidates import Candidates, CandidateSearch, Legs
from memory_server.core.embedding import Embedding
from memory_server.core.graph_leg import GraphLeg
from memory_server.core.linking import Linking
from memory_server.core.questions import Questions
from memory_server.core.recalling import Recalling
from memory_server.core.writing import Writing
from memory_server.domain.scoring import Ranking as RankedPool
from memory_server.ports import Collection, Expansion, PoolRow
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.cache import NullCache
from memory_server.stores.inmemory.graph_store import InMemoryGraphStore
from memory_server.stores.inmemory.index import InMemoryIndex
from memory_server.stores.inmemory.journal import InMemoryJournal
from memory_server.stores.inmemory.journal_index_queue import InMemoryIndexQueue
from memory_server.stores.inmemory.journal_recall_source import InMemoryRecallSource
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from soma_contract.embedders.hashing import HashingEmbedder
from soma_contract.errors import ComponentUnavailableError, SomaError
from soma_contract.filters import EVERYTHING, LabelField, LabelIn
from soma_contract.links import Direction, LinkKey, MakeLink, Reach, UseTogether
from soma_contract.memory import Memory, Remember
from soma_contract.recall import Leg, LegState, Preset, Ranking, Recalled, RecallQuery
from soma_contract.tenant import Tenant
from tests.conformance.graph_stores import ACME, named

QUESTION = "where is the red bicycle"
SEED = "the red bicycle is in the garage"


@dataclass(slots=True)
class WatchedGraph(InMemoryGraphStore):
    """Counts expansions; waits or fails on request."""

    asked: int = 0
    pause_s: float = 0.0
    outage: SomaError | None = None

    async def expand(
        self,
        tenant: Tenant,
        memory_ids: Sequence[str],
        reach: Reach,
        *,
        each: int,
        limit: int,
        whole: bool = False,
        deadline_s: float | None = None,
    ) -> Expansion:
        self.asked += 1
        await asyncio.sleep(self.pause_s)
        if self.outage is not None:
            raise self.outage
        return await InMemoryGraphStore.expand(
            self, tenant, memory_ids, reach, each=each, limit=limit, whole=whole, deadline_s=deadline_s
        )


class Nobody:
    """Knows no actors."""

    async def names(self, tenant: Tenant, namespace: str) -> tuple[str, ...]:
        return ()


@dataclass(slots=True)
class World:
    """A memory server's parts in memory."""

    graph: WatchedGraph
    writing: Writing
    recalling: Recalling

    async def remember(self, text: str, **fields: Any) -> str:
        written = await self.writing.write(ACME, Remember(Memory(text=text, **fields)))
        assert written.memory is not None
        return written.memory.memory_id

    async def link(self, source: str, target: str, strength: float = 1.0) -> None:
        await self.graph.write(ACME, [MakeLink(named(source), named(target), strength=strength)])

    async def recall(self, **fields: Any) -> Recalled:
        query = RecallQuery(text=QUESTION, **fields)
        return await self.recalling.recall(ACME, query, namespace="default", deadline_s=20.0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("SOMA_TESTING", "1")
    clock = SystemClock()
    truth = InMemoryTruth(clock, analysis())
    journal, source, queue = InMemoryJournal(truth), InMemoryRecallSource(truth), InMemoryIndexQueue(truth)
    graph = WatchedGraph(truth)
    embedding = Embedding(HashingEmbedder(), NullCache(), Nobody())

    async def lost(collection: Collection) -> None:
        """No indexer runs here: what the index does not hold is searched in the truth."""

    search = CandidateSearch(journal, source, queue, InMemoryIndex(), embedding, lost)
    questions = Questions(embedding, Nobody(), journal, clock)
    leg = GraphLeg(graph, clock)
    recalling = Recalling(journal, source, queue, search, questions, embedding, clock, graph=leg)
    profile = embedding.profile
    writing = Writing(journal, profile.dimension, profile.name, refer=Linking(graph, clock).refer)
    return World(graph, writing, recalling)


def leg_of(answer: Recalled) -> tuple[LegState, str]:
    report = next(report for report in answer.summary.legs if report.leg is Leg.GRAPH)
    return report.state, report.cause


async def test_a_recall_that_does_not_ask_for_links_reads_none(world: World) -> None:
    seed, other = await world.remember(SEED), await world.remember("lunch on monday")
    await world.link(seed, other)
    answer = await world.recall()
    assert (0, (LegState.SKIPPED, "")) == (world.graph.asked, leg_of(answer))
    assert [(), ()] == [hit.path for hit in answer.hits]


@pytest.mark.parametrize("asked", [{"ranking": Ranking(graph=1.0)}, {"preset": Preset.EXPLORATORY}])
async def test_graph_boost_applied_in_recall(world: World, asked: dict[str, Any]) -> None:
    seed = await world.remember(SEED)
    plain = [await world.remember(f"lunch on day {number}") for number in range(3)]
    await world.link(seed, plain[1], 0.9)
    before = await world.recall()
    after = await world.recall(**asked)
    places = [[hit.memory.memory_id for hit in answer.hits] for answer in (before, after)]
    assert seed == places[0][0] == places[1][0]
    assert plain[1] == places[1][1]
    boosted = after.hits[1]
    assert (seed, plain[1]) == boosted.path
    assert boosted.signals.graph == pytest.approx(0.9, rel=1e-3)
    assert LegState.RAN == leg_of(after)[0]


async def test_the_leg_adds_memories_that_no_other_leg_proposed(world: World) -> None:
    seed, hidden, farther = [await world.remember(text) for text in (SEED, "aurora", "borealis")]
    await world.link(seed, hidden, 0.5)
    await world.link(hidden, farther, 0.5)

    async def read(ids: Sequence[str]) -> Sequence[PoolRow]:
        rows, _ = await world.recalling.source.pool(ACME, EVERYTHING, ids, terms=(), profile="", neighbours=False)
        return rows

    best = [*await read([seed])]
    ranking = RankedPool(np.array([0]), np.ones(1, np.float32), np.ones(1, np.float32), {})
    leg = GraphLeg(world.graph, SystemClock())
    found, legs = Candidates(), Legs(SystemClock().monotonic)
    near, one_way = await leg.follow(ACME, best, ranking, 1, read, found, legs, 5.0)
    far, two_ways = await leg.follow(ACME, best, ranking, 2, read, found, legs, 5.0)
    assert [seed, hidden] == [row.memory.memory_id for row in near]
    assert {seed, hidden, farther} == {row.memory.memory_id for row in far}
    assert {hidden: (seed, hidden)} == {one: reached.path for one, reached in one_way.items()}
    assert [0.5, 0.25] == [two_ways[one].strength for one in (hidden, farther)]
    assert {hidden: 1, farther: 2} == found.ranks[Leg.GRAPH]


async def test_the_leg_without_a_weight_tells_the_way_and_leaves_the_order(world: World) -> None:
    seed = await world.remember(SEED)
    others = [await world.remember(f"lunch on day {number}") for number in range(3)]
    await world.link(seed, others[2])
    plain = await world.recall(legs=frozenset({Leg.KEYWORD}))
    told = await world.recall(legs=frozenset({Leg.KEYWORD, Leg.GRAPH}))
    assert [(hit.memory, hit.score) for hit in plain.hits] == [(hit.memory, hit.score) for hit in told.hits]
    assert {others[2]: (seed, others[2])} == {hit.memory.memory_id: hit.path for hit in told.hits if hit.path}


async def test_links_lead_to_nothing_that_the_filter_leaves_out(world: World) -> None:
    seed = await world.remember(SEED)
    secret = await world.remember("elsewhere", namespace="other")
    await world.link(seed, secret)
    answer = await world.recall(ranking=Ranking(graph=1.0))
    both = await world.recall(ranking=Ranking(graph=1.0), filter=LabelIn(LabelField.NAMESPACE, ("default", "other")))
    assert [seed] == [hit.memory.memory_id for hit in answer.hits]
    assert {seed, secret} == {hit.memory.memory_id for hit in both.hits}


async def test_a_late_leg_is_dropped_and_named_and_the_hits_stay(world: World) -> None:
    seed, other = await world.remember(SEED), await world.remember("lunch on monday")
    await world.link(seed, other)
    plain = await world.recall()
    world.graph.pause_s = 5.0
    late = await world.recall(ranking=Ranking(graph=1.0))
    assert (LegState.DROPPED, "BUDGET_SPENT:graph") == leg_of(late)
    assert late.summary.degraded
    assert late.summary.duration_s < world.graph.pause_s
    assert [hit.memory for hit in plain.hits] == [hit.memory for hit in late.hits]


async def test_a_failed_leg_is_named_with_its_reason(world: World) -> None:
    await world.remember(SEED)
    world.graph.outage = ComponentUnavailableError(component="postgres")
    answer = await world.recall(preset=Preset.EXPLORATORY)
    assert (LegState.DEGRADED, "COMPONENT_UNAVAILABLE:postgres") == leg_of(answer)
    assert 1 == len(answer.hits)


async def test_co_recall_creates_links(world: World) -> None:
    first, second = await world.remember(SEED), await world.remember("lunch on monday")
    await world.recall()
    assert [None] == await world.graph.links(ACME, [LinkKey(*_pair(first, second))]), "listing alone links nothing"
    await world.graph.write(ACME, [UseTogether((second, first))])
    (link,) = await world.graph.links(ACME, [LinkKey(*_pair(first, second))])
    assert link is not None
    assert 0.1 == pytest.approx(link.strength, rel=1e-3)


async def test_a_payload_links_what_it_names_by_key_id_and_namespace(world: World) -> None:
    city = await world.remember("London", key="user.city")
    pet = await world.remember("a cat", key="pet", namespace="home")
    name = await world.remember("Ada")
    payload = f'{{"references":["user.city",{{"key":"pet","namespace":"home"}},{{"memory_id":"{name}"}},7,"nobody"]}}'
    fact = await world.remember("a fact", payload_json=payload)
    expansion = await world.graph.expand(ACME, [fact], Reach(Direction.OUTGOING), each=9, limit=9)
    assert {city, pet, name} == {step.reached for step in expansion.steps}


def _pair(first: str, second: str) -> tuple[str, str, str]:
    source, target = sorted((first, second))
    return source, "co_recalled", target

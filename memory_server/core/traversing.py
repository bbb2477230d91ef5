"""The verbs that read the graph: neighbours, paths, subgraphs, ranking; fetched layer by layer, never whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from memory_server.core.pathfinding import PathSearch
from memory_server.core.reading import not_found
from memory_server.core.walking import LAYER_LINKS, Walk, key_of
from memory_server.domain.paths import Spread, Step, pagerank
from memory_server.ports import Clock, Expansion, GraphStore, Journal
from soma_contract.errors import BudgetSpentError
from soma_contract.links import (
    Direction,
    GraphSummary,
    Link,
    LinkKey,
    MemoryPath,
    Neighbor,
    NeighborQuery,
    PathQuery,
    RankedMemory,
    RankQuery,
    Reach,
    SubgraphQuery,
)
from soma_contract.memory import Memory, Target
from soma_contract.tenant import Tenant

BUDGET_S = 0.1
RANKED_NODES = 5_000
_FRAME = 256
_MEMORY_FRAME = 32
_WHOLE_ROWS = 256
"""Up to so many neighbours are read with their links in one statement."""

_TURNED = {
    Direction.BOTH: Direction.BOTH,
    Direction.OUTGOING: Direction.INCOMING,
    Direction.INCOMING: Direction.OUTGOING,
}


@dataclass(frozen=True, slots=True)
class Nodes:
    """A frame of memories of a subgraph, and how many links away each is."""

    memories: tuple[Memory, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Traversing:
    """Reads neighbourhoods; ``budget_s`` is what a call may spend on walking beyond its first layer."""

    graph: GraphStore
    journal: Journal
    clock: Clock
    budget_s: float = BUDGET_S

    async def neighbors(
        self, tenant: Tenant, query: NeighborQuery, *, deadline_s: float | None = None
    ) -> AsyncGenerator[tuple[Neighbor, ...] | GraphSummary, None]:
        """Yield frames of neighbours, nearest and strongest first, then the summary.

        Raises MemoryNotFoundError for the memory in the middle.
        """
        walk = self._walk(tenant, deadline_s)
        centre = query.target.memory_id or await self._one(tenant, query.target)
        known: dict[LinkKey, Link] = {}
        if query.hops == 1:
            spread, known = await self._nearest(walk, centre, query)
        else:
            spread = await walk.around([centre], query.reach, query.hops, query.limit)
        if not spread.via:
            # Nothing was found; only now it matters whether there is something to start from.
            await self._one(tenant, query.target)
        reached = list(spread.via)[: query.limit]
        size = _MEMORY_FRAME if query.include_memories else _FRAME
        for start in range(0, len(reached), size):
            yield await self._frame(tenant, reached[start : start + size], spread, known, query.include_memories)
        yield walk.summary()

    async def paths(
        self, tenant: Tenant, query: PathQuery, *, deadline_s: float | None = None
    ) -> AsyncGenerator[MemoryPath | GraphSummary, None]:
        """Yield paths, cheapest first, then the summary.  Raises MemoryNotFoundError with the missing end's field."""
        ends = []
        for field, target, found in zip(
            ("source", "target"),
            (query.source, query.target),
            await self.graph.resolve(tenant, [query.source, query.target]),
            strict=True,
        ):
            if found is None:
                missing = not_found(target)
                missing.metadata["field"] = field
                raise missing
            ends.append(found)
        walk = self._walk(tenant, deadline_s)
        if ends[0] == ends[1]:
            yield MemoryPath((ends[0],), (), 0.0)
            yield walk.summary()
            return
        back = replace(query.reach, direction=_TURNED[query.reach.direction])
        search = PathSearch(walk, ends[0], ends[1], query.max_length, query.reach, back)
        for steps in await search.run(query.max_paths):
            path = await self._path(tenant, ends[0], steps)
            if path is not None:
                yield path
        yield walk.summary()

    async def subgraph(
        self, tenant: Tenant, query: SubgraphQuery, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Nodes | tuple[Link, ...] | GraphSummary, None]:
        """Yield memories nearest first, then the links among those that were sent, then the summary."""
        walk = self._walk(tenant, deadline_s)
        starts = [found for found in await self.graph.resolve(tenant, query.targets) if found is not None]
        spread = await walk.around(starts, query.reach, query.radius, query.max_nodes)
        nodes = list(spread.depths)
        walk.seen.update(nodes)
        if len(nodes) > query.max_nodes:
            walk.spend("nodes")
            nodes = nodes[: query.max_nodes]
        sent: list[str] = []
        for start in range(0, len(nodes), _MEMORY_FRAME):
            chunk = nodes[start : start + _MEMORY_FRAME]
            read = await self.journal.get(tenant, [Target(memory_id=node) for node in chunk])
            memories = tuple(memory for memory in read if memory is not None)
            sent += [memory.memory_id for memory in memories]
            yield Nodes(memories, tuple(spread.depths[memory.memory_id] for memory in memories))
        steps = await self._among(walk, sent, query.reach)
        for start in range(0, len(steps), _FRAME):
            read_links = await self.graph.links(tenant, [key_of(step) for step in steps[start : start + _FRAME]])
            yield tuple(link for link in read_links if link is not None)
        yield walk.summary()

    async def rank(
        self, tenant: Tenant, query: RankQuery, *, deadline_s: float | None = None
    ) -> tuple[list[RankedMemory], GraphSummary]:
        """Return the best of the neighbourhood by personalised PageRank, ties by id, and the summary."""
        walk = self._walk(tenant, deadline_s)
        starts = [found for found in await self.graph.resolve(tenant, query.targets) if found is not None]
        spread = await walk.around(starts, query.reach, query.radius, RANKED_NODES)
        nodes = list(spread.depths)
        walk.seen.update(nodes)
        if len(nodes) > RANKED_NODES:
            walk.spend("nodes")
            nodes = nodes[:RANKED_NODES]
        steps = await self._among(walk, nodes, query.reach)
        links = [(step.came_from, step.reached, step.strength) for step in steps]
        scores = await asyncio.to_thread(pagerank, links, nodes, starts, query.damping)
        ordered = sorted(scores.items(), key=lambda one: (-one[1], one[0]))
        return [RankedMemory(*one) for one in ordered[: query.limit]], walk.summary()

    def _walk(self, tenant: Tenant, deadline_s: float | None) -> Walk:
        return Walk(self.graph, tenant, self.clock, self.budget_s, deadline_s)

    async def _one(self, tenant: Tenant, target: Target) -> str:
        (found,) = await self.graph.resolve(tenant, [target])
        if found is None:
            raise not_found(target)
        return found

    async def _nearest(self, walk: Walk, centre: str, query: NeighborQuery) -> tuple[Spread, dict[LinkKey, Link]]:
        """The strongest neighbours one link away: of a hub only as many links are read as it takes."""
        each = query.limit + 1
        whole = query.limit <= _WHOLE_ROWS
        while True:
            each = min(each, LAYER_LINKS)
            expansion = await self.graph.expand(
                walk.tenant,
                [centre],
                query.reach,
                each=each,
                limit=each,
                deadline_s=walk.deadline_s,
                whole=whole,
            )
            spread = Spread.of([centre])
            spread.advance(expansion.steps)
            enough = len(spread.via) >= query.limit
            if enough or not expansion.cut or each == LAYER_LINKS:
                walk.noted(Expansion(expansion.steps, cut=expansion.cut and not enough))
                return spread, {link.key: link for link in expansion.links}
            # Several links to the same neighbours: read more of them.
            each *= 4

    async def _frame(
        self,
        tenant: Tenant,
        reached: Sequence[str],
        spread: Spread,
        known: dict[LinkKey, Link],
        include_memories: bool,
    ) -> tuple[Neighbor, ...]:
        keys = [key_of(spread.via[one]) for one in reached]
        links: Sequence[Link | None] = [known.get(key) for key in keys]
        if None in links:
            links = await self.graph.links(tenant, keys)
        memories: Sequence[Memory | None] = [None] * len(reached)
        if include_memories:
            memories = await self.journal.get(tenant, [Target(memory_id=one) for one in reached])
        return tuple(
            Neighbor(one, spread.depths[one], spread.strengths[one], via, memory)
            for one, via, memory in zip(reached, links, memories, strict=True)
            # What was removed since it was walked is left out.
            if via is not None and (memory is not None or not include_memories)
        )

    async def _path(self, tenant: Tenant, source: str, steps: Sequence[Step]) -> MemoryPath | None:
        links = await self.graph.links(tenant, [key_of(step) for step in steps])
        kept = tuple(link for link in links if link is not None)
        if len(kept) < len(steps):
            return None
        return MemoryPath((source, *(step.reached for step in steps)), kept, sum(step.cost for step in steps))

    async def _among(self, walk: Walk, nodes: Sequence[str], reach: Reach) -> Sequence[Step]:
        """The links among memories that were reached; of a time budget already spent a last tenth of a second."""
        try:
            expansion = await self.graph.among(
                walk.tenant, nodes, reach, limit=LAYER_LINKS, deadline_s=max(walk.left_s(), BUDGET_S)
            )
        except BudgetSpentError:
            walk.spend("time")
            return ()
        return walk.noted(expansion)

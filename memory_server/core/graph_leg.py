"""The graph leg of recall: from the best hits along their links, within a tenth of a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memory_server.core.candidates import Candidates, Legs
from memory_server.core.walking import Walk
from memory_server.domain.paths import Spread, Step
from memory_server.domain.scoring import Ranking
from memory_server.ports import Clock, GraphStore, PoolRow
from soma_contract.errors import BudgetSpentError, SomaError
from soma_contract.links import Reach
from soma_contract.recall import Leg
from soma_contract.tenant import Tenant

SEEDS = 10
"""From so many best hits on links are followed."""
REACHED = 50
"""So many memories are added, the strongest."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How strongly the best hits lead to a memory, 0 to 1, and by which way, starting at the hit."""

    strength: float
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphLeg:
    """Follows links from the best hits: adds candidates, and a signal that counts only where it was asked for.

    A memory's signal is the relevance of a hit times the strengths of the links from it, at its largest.
    """

    graph: GraphStore
    clock: Clock

    async def follow(
        self,
        tenant: Tenant,
        rows: list[PoolRow],
        ranking: Ranking,
        hops: int,
        read: Callable[[Sequence[str]], Awaitable[Sequence[PoolRow]]],
        found: Candidates,
        legs: Legs,
        deadline_s: float,
    ) -> tuple[list[PoolRow], dict[str, Reached]]:
        """Return the rows with those that links from the best lead to, and how; notes the leg's fate.

        ``read`` reads rows by id as far as the recall may see them.  A late or failed leg changes nothing.
        """
        started = legs.now()
        try:
            async with asyncio.timeout(deadline_s):
                reached = await self.reach(tenant, seeds_of(rows, ranking), hops, deadline_s)
                known = {row.memory.memory_id for row in rows}
                more = [one for one in reached if one not in known]
                fresh = await read(more) if more else ()
        except (TimeoutError, BudgetSpentError):
            legs.failed(Leg.GRAPH, started, "BUDGET_SPENT:graph", late=True)
            return rows, {}
        except SomaError as error:
            legs.failed(Leg.GRAPH, started, f"{error.reason}:postgres")
            return rows, {}
        found.add(Leg.GRAPH, sorted(reached, key=lambda one: (-reached[one].strength, one)))
        legs.ran(Leg.GRAPH, started, len(reached))
        return [*rows, *(row for row in fresh if row.memory.memory_id not in known)], reached

    async def reach(
        self, tenant: Tenant, seeds: Mapping[str, float], hops: int, deadline_s: float
    ) -> dict[str, Reached]:
        """Follow links up to ``hops`` far from ``seeds`` (id → relevance, 0 to 1).

        Raises BudgetSpentError when the first links were not read in ``deadline_s`` seconds; later layers are
        left out when the time is over.
        """
        walk = Walk(self.graph, tenant, self.clock, deadline_s, deadline_s)
        spread = Spread.of(seeds)
        spread.strengths.update(seeds)
        among: dict[str, Reached] = {}
        while spread.depth < hops and spread.layer and not walk.late:
            steps = await walk.steps(spread.layer, Reach(), first=spread.depth == 0)
            for step in steps:
                if step.reached in seeds and step.came_from in seeds:
                    led = Reached(seeds[step.came_from] * step.strength, _way(step, seeds))
                    among[step.reached] = max(led, among.get(step.reached, led), key=lambda one: one.strength)
            spread.advance(steps)
        best = sorted(spread.via, key=lambda one: (-spread.strengths[one], one))[:REACHED]
        found = {one: Reached(spread.strengths[one], spread.path_to(one)) for one in best}
        return found | among


def _way(step: Step, seeds: Mapping[str, float]) -> tuple[str, ...]:
    """The way between two best hits, told of the less relevant one."""
    return (step.came_from, step.reached) if seeds[step.came_from] > seeds[step.reached] else ()


def seeds_of(rows: Sequence[PoolRow], ranking: Ranking) -> dict[str, float]:
    """The best hits with their scores as shares of the best one's."""
    best = [position for position in ranking.order[:SEEDS].tolist() if ranking.scores[position] > 0]
    if not best:
        return {}
    highest = float(ranking.scores[best[0]])
    return {rows[position].memory.memory_id: float(ranking.scores[position]) / highest for position in best}


def graph_signal(rows: Sequence[PoolRow], reached: Mapping[str, Reached]) -> NDArray[np.float32]:
    """How strongly each row is led to, shape (n,)."""
    values = [reached[row.memory.memory_id].strength if row.memory.memory_id in reached else 0.0 for row in rows]
    return np.array(values, np.float32)

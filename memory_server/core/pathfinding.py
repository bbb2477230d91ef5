"""The search for paths between two memories, from both ends at once."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice

from memory_server.core.walking import Walk
from memory_server.domain.paths import Meeting, Side, Step, alternatives, joined, meeting, nearer, turned
from soma_contract.links import Reach

MOST_TRIED = 1_000
"""So many paths in the order of their costs are looked at for those that are short enough."""


@dataclass(slots=True)
class PathSearch:
    """Layered relaxation over (memory, links so far) from both ends, at most half of the length from each.

    The side with the fewer memories at its front moves next.  It ends when no path that was not seen can be cheaper
    than the best one, when a side has nowhere to go, or when a budget is spent.
    """

    walk: Walk
    source: str
    target: str
    max_length: int
    ahead: Reach
    back: Reach
    _forward: Side = field(init=False)
    _backward: Side = field(init=False)
    _fetched: tuple[dict[str, list[Step]], dict[str, list[Step]]] = field(default_factory=lambda: ({}, {}))

    def __post_init__(self) -> None:
        self._forward, self._backward = Side.at(self.source), Side.at(self.target)

    async def run(self, max_paths: int) -> list[tuple[Step, ...]]:
        """Return up to ``max_paths`` paths without loops, cheapest first; exact unless the walk spent a budget."""
        best = await self._meet(cheapest_only=max_paths == 1)
        if best is None:
            return []
        first = joined(self._forward, self._backward, best)
        if max_paths == 1:
            return [first]
        return await self._several(first, max_paths)

    async def _meet(self, *, cheapest_only: bool) -> Meeting | None:
        best: Meeting | None = None
        most = (self.max_length + 1) // 2, self.max_length // 2
        while not self.walk.late:
            bound = best.cost if best is not None and cheapest_only else math.inf
            fronts = self._forward.frontier(bound), self._backward.frontier(bound)
            if not fronts[0] or not fronts[1]:
                break
            if self._forward.costs[-1][fronts[0][0]] + self._backward.costs[-1][fronts[1][0]] >= bound:
                break
            open_ = [at for at, side in enumerate((self._forward, self._backward)) if side.hops < most[at]]
            if not open_:
                break
            # Of equal fronts the one that is behind: two leaves of a hub meet there before the hub is walked through.
            sides = self._forward, self._backward
            moving = min(open_, key=lambda at: (len(fronts[at]), sides[at].hops))
            side = sides[moving]
            await self._advance(side, moving, fronts[moving])
            best = nearer(best, meeting(self._forward, self._backward, self.max_length, ahead=moving == 0))
        return best

    async def _advance(self, side: Side, moving: int, front: Sequence[str]) -> None:
        fetched = self._fetched[moving]
        missing = [node for node in front if node not in fetched]
        steps = await self.walk.steps(missing, (self.ahead, self.back)[moving], first=side.hops == 0) if missing else ()
        fetched.update((node, []) for node in missing)
        for step in steps:
            fetched[step.came_from].append(step)
        side.relax(front, fetched)

    async def _several(self, first: tuple[Step, ...], max_paths: int) -> list[tuple[Step, ...]]:
        """More paths on what was fetched, beside the event loop; late ones are left out."""
        found: list[tuple[Step, ...]] = [first]
        stop = threading.Event()
        adjacency = self._adjacency()
        known = {_nodes(first)}

        def look() -> bool:
            paths = alternatives(adjacency, self.source, self.target, self.max_length)
            for path in islice(paths, MOST_TRIED):
                if stop.is_set() or len(found) >= max_paths:
                    return True
                if path and _nodes(path) not in known:
                    known.add(_nodes(path))
                    found.append(path)
            return len(found) >= max_paths or next(paths, None) is None

        async with self.walk.excused():
            # Loaded when first needed, which takes long and is not this call's fault.
            await asyncio.to_thread(import_module, "networkx")
        try:
            async with asyncio.timeout(max(self.walk.left_s(), 0.0)):
                if not await asyncio.to_thread(look):
                    self.walk.spend("frontier")
        except TimeoutError:
            self.walk.spend("time")
        finally:
            stop.set()
        return sorted(found[:max_paths], key=lambda path: (sum(step.cost for step in path), len(path)))

    def _adjacency(self) -> dict[str, list[Step]]:
        """Everything that was fetched, in the direction of the path."""
        whole = {node: list(steps) for node, steps in self._fetched[0].items()}
        for steps in self._fetched[1].values():
            for step in steps:
                whole.setdefault(step.reached, []).append(turned(step))
        return whole


def _nodes(path: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.reached for step in path)

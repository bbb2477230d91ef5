"""Walking a graph that is fetched layer by layer: nearest and strongest, cheapest paths, personalised PageRank.

Pure: whoever fetches gives adjacency in, memory id → the steps that lead on from there.  A step costs minus the
logarithm of its strength, so the cheapest path is the one with the largest product of strengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

PAGERANK_ROUNDS = 1_000
PAGERANK_TOLERANCE = 1e-10


class Step(NamedTuple):
    """One link as it is walked; ``outgoing`` is whether it leads from ``came_from`` to ``reached``."""

    came_from: str
    reached: str
    strength: float
    relation: str
    outgoing: bool

    @property
    def cost(self) -> float:
        """What walking it costs."""
        return -math.log(self.strength)


Adjacency = Mapping[str, Sequence[Step]]


# --- nearest and strongest -----------------------------------------------------------------------


@dataclass(slots=True)
class Spread:
    """What is reached from some memories, by the fewest links and on the strongest way of that many.

    All that is kept stands in the order nearest first, then strongest, ties by id.
    """

    depths: dict[str, int]
    strengths: dict[str, float]
    via: dict[str, Step] = field(default_factory=dict)
    layer: list[str] = field(default_factory=list)
    """The memories reached last, strongest first, ties by id."""
    depth: int = 0

    @classmethod
    def of(cls, starts: Iterable[str]) -> Spread:
        """Start from these, each of strength 1."""
        layer = list(dict.fromkeys(starts))
        return cls(dict.fromkeys(layer, 0), dict.fromkeys(layer, 1.0), layer=layer)

    def advance(self, steps: Iterable[Step]) -> None:
        """Take the steps that lead on from the layer; what they reach anew is the next one."""
        fresh: dict[str, tuple[float, Step]] = {}
        for step in steps:
            if step.reached in self.depths:
                continue
            strength = self.strengths[step.came_from] * step.strength
            known = fresh.get(step.reached)
            if known is None or (-strength, step) < (-known[0], known[1]):
                fresh[step.reached] = strength, step
        self.depth += 1
        self.layer = sorted(fresh, key=lambda reached: (-fresh[reached][0], reached))
        for reached in self.layer:
            self.depths[reached] = self.depth
            self.strengths[reached], self.via[reached] = fresh[reached]

    def path_to(self, reached: str) -> tuple[str, ...]:
        """The memories on the way, from a start to ``reached``."""
        path = [reached]
        while path[-1] in self.via:
            path.append(self.via[path[-1]].came_from)
        return tuple(reversed(path))


# --- cheapest paths ------------------------------------------------------------------------------


@dataclass(slots=True)
class Side:
    """Relaxation from one end over (memory, links so far): ``costs[h]`` holds the cheapest walks of h links.

    A memory reached over more links but no cheaper is left out: whatever goes on from it goes on better from there.
    """

    costs: list[dict[str, float]]
    best: dict[str, float]
    came: list[dict[str, Step]]

    @classmethod
    def at(cls, end: str) -> Side:
        """Start at an end."""
        return cls([{end: 0.0}], {end: 0.0}, [{}])

    @property
    def hops(self) -> int:
        """Links walked so far."""
        return len(self.costs) - 1

    def frontier(self, bound: float = math.inf) -> list[str]:
        """The memories to go on from, cheapest first, ties by id; those that cost ``bound`` or more cannot help."""
        last = self.costs[-1]
        return sorted((node for node in last if last[node] < bound), key=lambda node: (last[node], node))

    def relax(self, nodes: Iterable[str], adjacency: Adjacency) -> None:
        """Walk one link further from these memories."""
        last, fresh, came = self.costs[-1], dict[str, float](), dict[str, Step]()
        for node in nodes:
            for step in adjacency.get(node, ()):
                cost = last[node] + step.cost
                reached = step.reached
                if cost < self.best.get(reached, math.inf) and cost < fresh.get(reached, math.inf):
                    fresh[reached], came[reached] = cost, step
        self.costs.append(fresh)
        self.came.append(came)
        self.best |= fresh

    def way(self, node: str, hops: int) -> list[Step]:
        """The steps of the walk that reached ``node`` over ``hops`` links, in the order walked."""
        steps: list[Step] = []
        for layer in range(hops, 0, -1):
            step = self.came[layer][node]
            steps.append(step)
            node = step.came_from
        return steps[::-1]


class Meeting(NamedTuple):
    """Where two sides meet cheapest: ``forward`` and ``backward`` links from the ends."""

    cost: float
    forward: int
    backward: int
    node: str


def meeting(forward: Side, backward: Side, max_length: int, *, ahead: bool) -> Meeting | None:
    """Where the last layer of one side (the forward one if ``ahead``) meets any of the other's, cheapest.

    Only paths of at most ``max_length`` links count; of equals the shortest, then the smallest id.
    """
    moved, waiting = (forward, backward) if ahead else (backward, forward)
    last = moved.costs[-1]
    found: Meeting | None = None
    for hops, costs in enumerate(waiting.costs[: max(0, max_length - moved.hops + 1)]):
        for node in last.keys() & costs.keys():
            over = (moved.hops, hops) if ahead else (hops, moved.hops)
            found = nearer(found, Meeting(last[node] + costs[node], *over, node))
    return found


def nearer(one: Meeting | None, other: Meeting | None) -> Meeting | None:
    """The cheaper of two; of equals the shorter, then that with the smaller id."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda at: (at.cost, at.forward + at.backward, at.node))


def joined(forward: Side, backward: Side, at: Meeting) -> tuple[Step, ...]:
    """The steps of the path through a meeting, from source to target.

    The backward side walked against the path, so its steps are turned round.
    """
    rest = [turned(step) for step in reversed(backward.way(at.node, at.backward))]
    return (*forward.way(at.node, at.forward), *rest)


def turned(step: Step) -> Step:
    """The same link walked the other way."""
    return Step(step.reached, step.came_from, step.strength, step.relation, not step.outgoing)


def cost_of(steps: Iterable[Step]) -> float:
    """What a path costs."""
    return sum(step.cost for step in steps)


def alternatives(adjacency: Adjacency, source: str, target: str, max_length: int) -> Iterator[tuple[Step, ...]]:
    """Paths without loops of at most ``max_length`` links, cheapest first, by NetworkX on what was fetched.

    Of links between the same two memories the strongest is walked.
    """
    # Loaded when first needed: most servers never look for a second path.
    import networkx as nx

    best: dict[tuple[str, str], Step] = {}
    for steps in adjacency.values():
        for step in steps:
            known = best.get((step.came_from, step.reached))
            if known is None or (-step.strength, step) < (-known.strength, known):
                best[step.came_from, step.reached] = step
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_weighted_edges_from((a, b, step.cost) for (a, b), step in best.items())
    if source not in graph or target not in graph:
        return
    ahead = nx.single_source_shortest_path_length(graph, source, cutoff=max_length)
    behind = nx.single_source_shortest_path_length(graph.reverse(copy=False), target, cutoff=max_length)
    within = [node for node in ahead if node in behind and ahead[node] + behind[node] <= max_length]
    if target not in ahead:
        return
    for nodes in nx.shortest_simple_paths(graph.subgraph(within), source, target, weight="weight"):
        if len(nodes) - 1 <= max_length:
            yield tuple(best[pair] for pair in pairwise(nodes))
        else:
            yield ()


# --- ranking -------------------------------------------------------------------------------------


def pagerank(
    links: Iterable[tuple[str, str, float]], nodes: Iterable[str], starts: Iterable[str], damping: float
) -> dict[str, float]:
    """Personalised PageRank of ``nodes``, summing to 1: walkers follow links either way by strength.

    ``links`` are (source, target, strength); several between two memories add up.  Walkers start over, and leave
    memories without links, at ``starts`` evenly.  Page, Brin, Motwani and Winograd (1999); the definition is that of
    ``networkx.pagerank``, whose implementation needs SciPy.
    """
    order = {node: place for place, node in enumerate(dict.fromkeys(nodes))}
    count = len(order)
    if not count:
        return {}
    chosen = [order[start] for start in dict.fromkeys(starts) if start in order]
    begin = np.zeros(count)
    begin[chosen] = 1.0 / len(chosen)
    pairs = [(order[a], order[b], s) for a, b, s in links if a in order and b in order]
    tails = np.array([a for a, _, _ in pairs] + [b for _, b, _ in pairs], np.int64)
    heads = np.array([b for _, b, _ in pairs] + [a for a, _, _ in pairs], np.int64)
    weights = np.array([s for _, _, s in pairs] * 2, np.float64)
    out = np.bincount(tails, weights, count) if pairs else np.zeros(count)
    shares = weights / out[tails] if pairs else weights
    lost = out == 0.0
    scores = begin.copy()
    for _ in range(PAGERANK_ROUNDS):
        flow = np.bincount(heads, scores[tails] * shares, count) if pairs else np.zeros(count)
        fresh = damping * (flow + scores[lost].sum() * begin) + (1.0 - damping) * begin
        if np.abs(fresh - scores).sum() < PAGERANK_TOLERANCE:
            scores = fresh
            break
        scores = fresh
    return {node: float(scores[place]) for node, place in order.items()}

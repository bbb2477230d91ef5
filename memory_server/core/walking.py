"""Fetching a graph step by step within budgets of time and size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from memory_server.domain.paths import Spread, Step
from memory_server.ports import Clock, Expansion, GraphStore
from soma_contract.errors import BudgetSpentError
from soma_contract.links import GraphSummary, LinkKey, Reach
from soma_contract.tenant import Tenant

FRONTIER = 5_000
"""So many memories are walked on from at a time, the best."""
LAYER_LINKS = 20_000
"""So many links are read at a time."""
EACH_LINKS = 32
"""So many links a memory are read at least, however many memories share the layer."""
WHOLE_LINKS = 100_000
"""So many links a call reads in all, which bounds its memory."""


@dataclass(slots=True)
class Walk:
    """One call's way through the graph: what it may spend, and what it has spent.

    The first fetch may take what the call has; those after it share ``budget_s`` seconds.
    """

    graph: GraphStore
    tenant: Tenant
    clock: Clock
    budget_s: float
    deadline_s: float | None = None
    spent: str = ""
    late: bool = False
    """Whether the time is spent; what was cut for other reasons does not end a walk."""
    read: int = 0
    seen: set[str] = field(default_factory=set)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock.monotonic()

    def left_s(self) -> float:
        """Seconds that are left of the budget."""
        elapsed_s = self.clock.monotonic() - self._started
        left_s = self.budget_s - elapsed_s
        return left_s if self.deadline_s is None else min(left_s, self.deadline_s - elapsed_s)

    @asynccontextmanager
    async def excused(self) -> AsyncIterator[None]:
        """Leave what happens here out of the budget; the call's deadline goes on."""
        started = self.clock.monotonic()
        try:
            yield
        finally:
            self.budget_s += self.clock.monotonic() - started

    async def steps(self, nodes: Sequence[str], reach: Reach, *, first: bool = False) -> Sequence[Step]:
        """Read the steps on from memories, given best first; notes what was cut.

        None come when the budget is spent.  Raises BudgetSpentError when even the first fetch had no time.
        """
        if len(nodes) > FRONTIER:
            self.spend("frontier")
            nodes = nodes[:FRONTIER]
        each = max(EACH_LINKS, LAYER_LINKS // max(1, len(nodes)))
        limit = min(LAYER_LINKS, WHOLE_LINKS - self.read)
        if not nodes or limit <= 0:
            self.spend("frontier" if nodes else "")
            return ()
        expansion = await self._timed(nodes, reach, each, limit, first=first)
        return self.noted(expansion)

    def noted(self, expansion: Expansion) -> Sequence[Step]:
        """Count what was read."""
        self.read += len(expansion.steps)
        self.seen.update(step.reached for step in expansion.steps)
        if expansion.cut:
            self.spend("frontier")
        return expansion.steps

    async def around(self, starts: Sequence[str], reach: Reach, radius: int, most: int) -> Spread:
        """Walk from memories up to ``radius`` links away, or until ``most`` memories are reached."""
        spread = Spread.of(starts)
        while spread.depth < radius and spread.layer and len(spread.depths) <= most and not self.late:
            spread.advance(await self.steps(spread.layer, reach, first=spread.depth == 0))
        return spread

    def spend(self, budget: str) -> None:
        """Note which budget ran out; the first one is told."""
        self.spent = self.spent or budget
        self.late = self.late or budget == "time"

    def summary(self) -> GraphSummary:
        """How the call ended."""
        return GraphSummary(len(self.seen), self.spent)

    async def _timed(self, nodes: Sequence[str], reach: Reach, each: int, limit: int, *, first: bool) -> Expansion:
        deadline_s = self.deadline_s if first else self.left_s()
        if not first and self.left_s() <= 0:
            self.spend("time")
            return Expansion(())
        try:
            return await self.graph.expand(self.tenant, nodes, reach, each=each, limit=limit, deadline_s=deadline_s)
        except BudgetSpentError:
            if first:
                raise
            self.spend("time")
            return Expansion(())


def key_of(step: Step) -> LinkKey:
    """The link that was walked."""
    if step.outgoing:
        return LinkKey(step.came_from, step.relation, step.reached)
    return LinkKey(step.reached, step.relation, step.came_from)

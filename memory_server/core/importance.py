"""Where a memory's importance stands among all of its namespace: what one author calls 5, another calls 100."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from memory_server.domain.quantile_sketch import QuantileSketch
from memory_server.ports import Clock, PoolRow, RecallSource
from soma_contract.tenant import Tenant

FRESH_S = 60.0
"""Counts of this age are used; what was written since moves a rank by little."""
_KEPT = 1_000


@dataclass(slots=True)
class ImportanceRanks:
    """Ranks importances by counts that the truth keeps for each tenant and namespace, made when they are asked for.

    A write pays nothing for them, and a tenant that never ranks by importance has none.
    """

    source: RecallSource
    clock: Clock
    _sketches: OrderedDict[tuple[Tenant, str], tuple[float, QuantileSketch]] = field(default_factory=OrderedDict)

    async def ranked(self, tenant: Tenant, rows: Sequence[PoolRow]) -> list[PoolRow]:
        """Return the rows with the rank of their importance in [0, 1]; those without importance have none."""
        by_namespace: dict[str, list[int]] = {}
        for position, row in enumerate(rows):
            if row.memory.importance is not None:
                by_namespace.setdefault(row.memory.namespace, []).append(position)
        ranked = list(rows)
        for namespace, positions in by_namespace.items():
            sketch = await self._sketch(tenant, namespace)
            ranks = sketch.ranks(rows[position].memory.importance or 0.0 for position in positions)
            for position, rank in zip(positions, ranks, strict=True):
                ranked[position] = replace(rows[position], importance_rank=rank)
        return ranked

    async def _sketch(self, tenant: Tenant, namespace: str) -> QuantileSketch:
        place = tenant, namespace
        kept, now = self._sketches.get(place), self.clock.monotonic()
        if kept is not None and now - kept[0] < FRESH_S:
            return kept[1]
        sketch = QuantileSketch(await self.source.importance_counts(tenant, namespace, fresh_s=FRESH_S))
        self._sketches[place] = now, sketch
        self._sketches.move_to_end(place)
        while len(self._sketches) > _KEPT:
            self._sketches.popitem(last=False)
        return sketch

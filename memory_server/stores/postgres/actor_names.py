"""Which actors a namespace knows, kept for some seconds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from memory_server.ports import Clock
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.pools import Pools
from soma_contract.tenant import Tenant

MOST = 256
"""So many actors' names are cut out of texts; a namespace with more is no conversation."""


@dataclass(slots=True)
class PostgresActorNames:
    """Reads actors by a loose index scan: as many probes as there are actors, not rows."""

    pools: Pools
    clock: Clock
    fresh_s: float = 5.0
    capacity: int = 10_000
    _kept: OrderedDict[tuple[Tenant, str], tuple[float, tuple[str, ...]]] = field(default_factory=OrderedDict)

    async def names(self, tenant: Tenant, namespace: str) -> tuple[str, ...]:
        """Return the known actors of a namespace, sorted."""
        kept = self._kept.get((tenant, namespace))
        if kept is not None and self.clock.monotonic() - kept[0] < self.fresh_s:
            return kept[1]
        async with self.pools.interactive.tenant(tenant) as connection:
            rows = await connection.fetch(sql.query("actor_names"), tenant.name, namespace, MOST)
        names = tuple(row["actor"] for row in rows)
        self._kept[(tenant, namespace)] = (self.clock.monotonic(), names)
        self._kept.move_to_end((tenant, namespace))
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return names

"""The cache in memory, and the cache that is switched off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from soma_contract.errors import ComponentUnavailableError
from soma_contract.memory import Memory, Target
from soma_contract.tenant import Tenant


class InMemoryCache:
    """The Cache port without a store; ``available`` False makes it miss everything, as in an outage."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.available = True
        self._now = now
        self._embeddings: dict[bytes, bytes] = {}
        self._memories: dict[tuple[str, str], tuple[int, Memory | None]] = {}

    async def get_embeddings(self, content_keys: Sequence[bytes]) -> list[bytes | None]:
        """Read embeddings by content key."""
        return [self._embeddings.get(key) if self.available else None for key in content_keys]

    async def put_embeddings(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep embeddings by content key."""
        if self.available:
            self._embeddings.update(entries)

    async def get_memory(self, tenant: Tenant, target: Target) -> Memory | None:
        """Read a recent memory, for answers while the truth is down."""
        if not self.available:
            return None
        for (name, memory_id), (_, memory) in self._memories.items():
            if name == tenant.name and memory is not None and _names(target, memory_id, memory):
                return None if memory.expires_at is not None and memory.expires_at <= self._now() else memory
        return None

    async def put_memories(self, tenant: Tenant, memories: Sequence[Memory]) -> None:
        """Keep memories unless a newer version or tombstone is there."""
        for memory in memories if self.available else ():
            held = self._memories.get((tenant.name, memory.memory_id))
            if held is None or held[0] < memory.version or (held[0] == memory.version and held[1] is not None):
                self._memories[tenant.name, memory.memory_id] = memory.version, memory

    async def put_tombstones(self, tenant: Tenant, versions: Mapping[str, int]) -> None:
        """Mark memories as deleted as of a version; kept even while the cache is away."""
        for memory_id, version in versions.items():
            held = self._memories.get((tenant.name, memory_id))
            if held is None or held[0] <= version:
                self._memories[tenant.name, memory_id] = version, None

    async def erase(self, tenant: Tenant) -> int:
        """Delete all that is kept of a tenant and return how many entries."""
        await self.probe()
        own = [key for key in self._memories if key[0] == tenant.name]
        for key in own:
            del self._memories[key]
        return len(own)

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        if not self.available:
            raise ComponentUnavailableError(component="redis")


class NullCache:
    """The Cache port switched off: holds nothing, finds nothing, harms nobody."""

    async def get_embeddings(self, content_keys: Sequence[bytes]) -> list[bytes | None]:
        """Find nothing."""
        return [None] * len(content_keys)

    async def put_embeddings(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep nothing."""

    async def get_memory(self, tenant: Tenant, target: Target) -> Memory | None:
        """Find nothing."""
        return None

    async def put_memories(self, tenant: Tenant, memories: Sequence[Memory]) -> None:
        """Keep nothing."""

    async def put_tombstones(self, tenant: Tenant, versions: Mapping[str, int]) -> None:
        """Keep nothing."""

    async def erase(self, tenant: Tenant) -> int:
        """Have nothing to delete."""
        return 0

    async def probe(self) -> None:
        """Be there."""


def _names(target: Target, memory_id: str, memory: Memory) -> bool:
    if target.memory_id:
        return target.memory_id == memory_id
    if memory.namespace != target.namespace:
        return False
    if target.key:
        return memory.key == target.key
    return target.coordinate is not None and memory.coordinate == target.coordinate

"""The cache on Redis: it may be slow, empty, wrong or dead, and nobody notices but the clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from memory_server.stores.redis import keys
from memory_server.stores.redis.codec import decode_memory, encode_memory
from memory_server.stores.redis.wire import CacheCounts, RedisLimits, RedisWire
from soma_contract.memory import Memory, Target
from soma_contract.tenant import Tenant

_T = TypeVar("_T")

_CHUNK = 64
_VERSION_DIGITS = 20
_MEMORY, _TOMBSTONE = b"M", b"T"

# Keeps a value unless a newer version, or a tombstone of the same version, is there.  The layout of a value is
# binding (16), version (20 digits), M or T, memory; a value that is bound to another key does not count.
_PUT_NEWER: Final = """
local held = redis.call('GETRANGE', KEYS[1], 0, 36)
if #held == 37 and string.sub(held, 1, 16) == string.sub(ARGV[1], 1, 16) then
  local old, new = tonumber(string.sub(held, 17, 36)), tonumber(string.sub(ARGV[1], 17, 36))
  if old > new then return 0 end
  if old == new and string.sub(held, 37, 37) == 'T' and string.sub(ARGV[1], 37, 37) == 'M' then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


@dataclass(slots=True)
class _Owed:
    """Tombstones that Redis has not taken, by (tenant, id); while there are any, no memory is answered."""

    versions: dict[tuple[Tenant, str], int] = field(default_factory=dict)
    distrust_until: float = 0.0


class RedisCache:
    """The Cache port on Redis; an async context manager that owns its connections."""

    def __init__(
        self,
        url: str,
        *,
        limits: RedisLimits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = RedisWire(url, limits or RedisLimits(), monotonic)
        self._limits = self._wire.limits
        self._now = now
        self._monotonic = monotonic
        self._owed = _Owed()

    @property
    def counts(self) -> CacheCounts:
        """What the cache did since its start."""
        return self._wire.counts

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.close()

    # --- embeddings ---

    async def get_embeddings(self, content_keys: Sequence[bytes]) -> list[bytes | None]:
        """Read embeddings by content key; a value bound to another key is a miss."""
        found: list[bytes | None] = []
        for chunk in _chunks(content_keys):
            names = [keys.embedding_cache_key(key) for key in chunk]
            values = await self._wire.pipelined([("GET", name) for name in names])
            found += [self._unbound(name, value) for name, value in zip(names, values, strict=True)]
        return found

    async def put_embeddings(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep embeddings by content key."""
        for chunk in _chunks(list(entries)):
            commands = []
            for content_key in chunk:
                name = keys.embedding_cache_key(content_key)
                value = keys.bound(name, entries[content_key])
                commands.append(("SET", name, value, "PX", self._lifetime_ms(self._limits.embedding_ttl_s)))
            await self._wire.pipelined(commands)

    # --- memories ---

    async def get_memory(self, tenant: Tenant, target: Target) -> Memory | None:
        """Read a recent memory, for answers while the truth is down."""
        if not await self._trusted():
            return None
        memory_id = target.memory_id or await self._resolved(tenant, target)
        if not memory_id:
            return None
        name = keys.memory_cache_key(tenant, memory_id)
        value = self._unbound(name, (await self._wire.pipelined([("GET", name)]))[0])
        if value is None or value[_VERSION_DIGITS : _VERSION_DIGITS + 1] != _MEMORY:
            return None
        memory = decode_memory(value[_VERSION_DIGITS + 1 :])
        if memory is None or memory.memory_id != memory_id or not _is_named(memory, target):
            return None
        expired = memory.expires_at is not None and memory.expires_at <= self._now()
        return None if expired else memory

    async def put_memories(self, tenant: Tenant, memories: Sequence[Memory]) -> None:
        """Keep memories unless a newer version or tombstone is there (compare and set)."""
        for chunk in _chunks(memories):
            commands: list[tuple[Any, ...]] = []
            for memory in chunk:
                lifetime_ms = self._memory_lifetime_ms(memory)
                if lifetime_ms <= 0:
                    continue
                name = keys.memory_cache_key(tenant, memory.memory_id)
                commands.append(_put(name, memory.version, _MEMORY, encode_memory(memory), lifetime_ms))
                for alias in _aliases(tenant, memory):
                    value = keys.bound(alias, memory.memory_id.encode())
                    commands.append(("SET", alias, value, "PX", lifetime_ms))
            await self._wire.pipelined(commands)

    async def put_tombstones(self, tenant: Tenant, versions: Mapping[str, int]) -> None:
        """Mark memories as deleted as of a version, so that no late value revives them."""
        for memory_id, version in versions.items():
            held = self._owed.versions.get((tenant, memory_id), version)
            self._owed.versions[tenant, memory_id] = max(held, version)
        await self._pay_tombstones()

    async def erase(self, tenant: Tenant) -> int:
        """Delete all that is kept of a tenant and return how many entries; raises ComponentUnavailableError.

        Takes as long as the keys take to be scanned: erasure is a promise, not an optimisation.
        """
        return await self._wire.unlink_matching(keys.tenant_pattern(tenant))

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        await self._wire.ping()

    # --- tombstones that are owed ---

    async def _trusted(self) -> bool:
        """Whether what Redis holds may be answered: not while it lacks a tombstone this process knows of."""
        if self._owed.versions:
            await self._pay_tombstones()
        return not self._owed.versions and self._monotonic() >= self._owed.distrust_until

    async def _pay_tombstones(self) -> None:
        owed = list(self._owed.versions.items())
        # Twice as long as any memory that was put before it can live.
        lifetime_ms = int(self._limits.memory_ttl_s * 2_000)
        for chunk in _chunks(owed):
            commands = [
                _put(keys.memory_cache_key(tenant, memory_id), version, _TOMBSTONE, b"", lifetime_ms)
                for (tenant, memory_id), version in chunk
            ]
            answers = await self._wire.pipelined(commands)
            for (name, version), answer in zip(chunk, answers, strict=True):
                if answer is not None and self._owed.versions.get(name) == version:
                    del self._owed.versions[name]
        if len(self._owed.versions) > self._limits.owed_tombstones:
            # Too many to remember: believe no memory until all that are there now have expired.
            self._owed.versions.clear()
            self._owed.distrust_until = self._monotonic() + self._limits.memory_ttl_s

    # --- values ---

    async def _resolved(self, tenant: Tenant, target: Target) -> str:
        if target.key:
            alias = keys.name_cache_key(tenant, target.namespace, target.key)
        elif target.coordinate is not None:
            alias = keys.coordinate_cache_key(tenant, target.namespace, target.coordinate)
        else:
            return ""
        value = self._unbound(alias, (await self._wire.pipelined([("GET", alias)]))[0])
        return "" if value is None else value.decode("ascii", "replace")

    def _unbound(self, name: bytes, value: Any) -> bytes | None:
        payload = keys.unbound(name, value) if isinstance(value, bytes) else None
        if payload is not None:
            self._wire.counts.hits += 1
        else:
            self._wire.counts.misses += 1
            self._wire.counts.foreign += value is not None
        return payload

    def _lifetime_ms(self, ttl_s: float) -> int:
        return max(1, int(ttl_s * 1_000 * (1 - random.random() * self._limits.jitter)))

    def _memory_lifetime_ms(self, memory: Memory) -> int:
        lifetime_ms = self._lifetime_ms(self._limits.memory_ttl_s)
        if memory.expires_at is not None:
            lifetime_ms = min(lifetime_ms, int((memory.expires_at - self._now()).total_seconds() * 1_000))
        return lifetime_ms


def _put(name: bytes, version: int, kind: bytes, payload: bytes, lifetime_ms: int) -> tuple[Any, ...]:
    value = keys.bound(name, f"{version:0{_VERSION_DIGITS}}".encode() + kind + payload)
    return ("EVAL", _PUT_NEWER, 1, name, value, lifetime_ms)


def _aliases(tenant: Tenant, memory: Memory) -> list[bytes]:
    aliases = []
    if memory.key:
        aliases.append(keys.name_cache_key(tenant, memory.namespace, memory.key))
    if memory.coordinate is not None:
        aliases.append(keys.coordinate_cache_key(tenant, memory.namespace, memory.coordinate))
    return aliases


def _is_named(memory: Memory, target: Target) -> bool:
    """Whether the target still names this memory: an alias may be older than a change of the key."""
    if target.memory_id:
        return True
    if memory.namespace != target.namespace:
        return False
    return memory.key == target.key if target.key else memory.coordinate == target.coordinate


def _chunks(items: Sequence[_T]) -> list[Sequence[_T]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]

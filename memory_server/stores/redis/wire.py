"""Calls to Redis: one budget a call, a pause after a failure, never an exception on the way to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from memory_server.stores.redis.circuit import Circuit
from rpckit.telemetry.tracing import store_span
from soma_contract.errors import ComponentUnavailableError

COMPONENT: Final = "redis"

_T = TypeVar("_T")

_PROBE_S = 1.0
_SCAN = 1_000


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """Patience, lifetimes and sizes of the cache."""

    budget_s: float = 0.05
    """What one call may take; an answer is worth no more than it saves."""
    pause_s: float = 1.0
    """How long Redis is skipped after a failure."""
    memory_ttl_s: float = 3_600.0
    embedding_ttl_s: float = 7 * 86_400.0
    jitter: float = 0.1
    """Share by which lifetimes are shortened at random, so that what came together does not leave together."""
    connections: int = 16
    owed_tombstones: int = 10_000
    """Tombstones remembered while Redis does not take them."""


@dataclass(slots=True)
class CacheCounts:
    """What the cache did since its start, for metrics."""

    hits: int = 0
    misses: int = 0
    skipped: int = 0
    failures: int = 0
    foreign: int = 0
    """Values that were bound to another key than the one asked for."""


class RedisWire:
    """A pool of connections to Redis."""

    def __init__(self, url: str, limits: RedisLimits, monotonic: Callable[[], float]) -> None:
        self.limits = limits
        self.counts = CacheCounts()
        self._circuit = Circuit(limits.pause_s, monotonic)
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=limits.connections,
            timeout=limits.budget_s,
            socket_timeout=limits.budget_s,
            socket_connect_timeout=limits.budget_s,
            # A repetition costs more than a miss.
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            protocol=2,
            driver_info=None,
        )
        self._redis: Any = Redis(connection_pool=pool)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send single-key commands together; what failed or was not tried is None."""
        if not commands:
            return []

        async def send() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
                return answers

        answers = await self._tried(send)
        if answers is None:
            return [None] * len(commands)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            self.counts.failures += 1
            self._circuit.failed()
        return [None if isinstance(answer, Exception) else answer for answer in answers]

    async def _tried(self, call: Callable[[], Awaitable[_T]]) -> _T | None:
        if not self._circuit.admits():
            self.counts.skipped += 1
            return None
        try:
            # A call that is cut off closes its connection, so that no later call reads its answer.
            async with asyncio.timeout(self.limits.budget_s):
                with store_span(COMPONENT, "pipeline"):
                    answer = await call()
        except (RedisError, OSError, TimeoutError):
            self.counts.failures += 1
            self._circuit.failed()
            return None
        self._circuit.succeeded()
        return answer

    async def unlink_matching(self, pattern: str) -> int:
        """Delete all keys of a pattern, without a budget; raises ComponentUnavailableError."""
        deleted = 0
        try:
            batch: list[bytes] = []
            async for name in self._redis.scan_iter(match=pattern, count=_SCAN):
                batch.append(name)
                if len(batch) == _SCAN:
                    deleted += await self._redis.unlink(*batch)
                    batch = []
            if batch:
                deleted += await self._redis.unlink(*batch)
        except (RedisError, OSError, TimeoutError) as error:
            raise ComponentUnavailableError(component=COMPONENT) from error
        return deleted

    async def ping(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise ComponentUnavailableError(component=COMPONENT) from error

"""What the registry answered lately: used unasked while fresh, and in its stead while it cannot be asked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from memory_server.ports import Clock
from soma_contract.errors import Code, ComponentUnavailableError, SomaError

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_AWAY = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})


@dataclass(slots=True)
class Patience:
    """How long the registry is waited for; one for all that ask the same registry."""

    fresh_s: float = 5.0
    """An answer of this age is used unasked."""
    outage_s: float = 86_400.0
    """An answer of this age is used while the registry is away."""
    known_s: float = 0.2
    """How long a caller waits whose last answer would do."""
    unknown_s: float = 1.5
    """How long one waits of whom nothing is known."""
    pause_s: float = 1.0
    """For so long nobody with a usable answer asks again, once somebody waited in vain."""
    away_until: float = 0.0


@dataclass(slots=True)
class Answers(Generic[Key, Value]):
    """Answers by question, the oldest used forgotten first."""

    clock: Clock
    patience: Patience
    capacity: int = 10_000
    _kept: OrderedDict[Key, tuple[float, Value]] = field(default_factory=OrderedDict)

    async def get(self, key: Key, ask: Callable[[], Awaitable[Value]]) -> tuple[Value, bool]:
        """Return the answer, and whether it stands in for one that could not be had.

        Raises what ``ask`` raises; a refusal ends what was known before.  Raises ComponentUnavailableError when the
        registry is away and nothing usable is known.
        """
        kept, now, patience = self._kept.get(key), self.clock.monotonic(), self.patience
        if kept is not None and now - kept[0] < patience.fresh_s:
            self._kept.move_to_end(key)
            return kept[1], False
        usable = kept is not None and now - kept[0] < patience.outage_s
        if kept is not None and usable and now < patience.away_until:
            return kept[1], True
        try:
            async with asyncio.timeout(patience.known_s if usable else patience.unknown_s):
                value = await ask()
        except TimeoutError:
            error: SomaError = ComponentUnavailableError(component="postgres", retry_after_s=patience.pause_s)
        except SomaError as refused:
            if refused.code not in _AWAY:
                self._kept.pop(key, None)
                raise
            error = refused
        else:
            self._keep(key, value)
            return value, False
        patience.away_until = self.clock.monotonic() + patience.pause_s
        if kept is None or not usable:
            raise error
        return kept[1], True

    def forget(self, holds: Callable[[Value], bool]) -> None:
        """Drop every answer of which this holds."""
        for key in [key for key, value in self._items() if holds(value)]:
            del self._kept[key]

    def forget_all(self) -> None:
        """Drop every answer."""
        self._kept.clear()

    def _items(self) -> Iterator[tuple[Key, Value]]:
        return ((key, value) for key, (_, value) in self._kept.items())

    def _keep(self, key: Key, value: Value) -> None:
        self._kept[key] = (self.clock.monotonic(), value)
        self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

"""Long work on the event loop, in slices that leave room for calls."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.002
"""So long may work go on before everything else that is ready has its turn."""


class Pace:
    """Call :meth:`step` between the items of long work: every 2 ms it lets the loop go round."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def step(self) -> None:
        """Go on at once, or let others go first if the slice is used up."""
        if time.perf_counter() < self._until:
            return
        await asyncio.sleep(0)
        self._until = time.perf_counter() + SLICE_S

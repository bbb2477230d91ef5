"""What goes wrong on purpose: processes killed and frozen, now and at named places of their code."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from rpckit.failpoints import POINTS
from soma_embedded.stack import ProcessName
from tests.adversity.torture.scene import PROCESSES, Scene, now

BRAINS_POINTS = ("brain.", "delivery.")
_READY_S = 60.0


@dataclass(slots=True)
class Nemesis:
    """Strikes processes of a scene and waits until they are back."""

    scene: Scene
    chosen: random.Random
    back_s: dict[str, list[float]] = field(default_factory=dict)
    """By process, the seconds from each death to the first good answer."""
    kills: int = 0
    effective: int = 0
    """Kills while at least one call waited for its answer."""
    freezes: int = 0
    fired: dict[str, int] = field(default_factory=dict)
    """Places a process died at, and how often."""

    async def kill(self, victim: ProcessName, in_flight: int) -> None:
        """Kill a process as it is, and wait until its successor is ready."""
        began = now()
        await self.scene.stack.kill(victim)
        self.kills += 1
        self.effective += in_flight > 0
        await self._back(victim, began)

    async def freeze(self, victim: ProcessName, seconds: float) -> None:
        """Stop a process for some seconds; it does not know."""
        await self.scene.stack.kill(victim, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.scene.stack.kill(victim, signal.SIGCONT)
        self.freezes += 1

    async def die_at(self, point: str, hit: int, within_s: float) -> bool:
        """Have a server die at a named place; False when it did not come there in time."""
        victim: ProcessName = "brain" if point.startswith(BRAINS_POINTS) else "memory"
        await self.scene.stack.ready(victim)
        before = self.scene.stack.pids[victim]
        self.scene.order_file.write_text(f"{point}:{hit}")
        await self.scene.stack.kill(victim, signal.SIGUSR1)
        until = now() + within_s
        # The process says nothing when it dies; that it is gone says it.
        while self.scene.stack.pids[victim] == before and now() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self.scene.order_file.unlink(missing_ok=True)
        if self.scene.stack.pids[victim] == before:
            self.scene.order_file.write_text(":0")
            await self.scene.stack.kill(victim, signal.SIGUSR1)
            return False
        self.kills += 1
        self.effective += 1
        self.fired[point] = self.fired.get(point, 0) + 1
        began = now()
        while self.scene.stack.pids[victim] in (None, before):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        await self._back(victim, began)
        return True

    def victims(self, count: int) -> Sequence[ProcessName]:
        """So many victims, all processes in turn, each round in another order."""
        order: list[ProcessName] = []
        while len(order) < count:
            order += self.chosen.sample(PROCESSES, len(PROCESSES))
        return order[:count]

    def points(self) -> Sequence[str]:
        """All named places, in a random order."""
        return self.chosen.sample(sorted(POINTS), len(POINTS))

    async def _back(self, victim: ProcessName, began: float) -> None:
        async with asyncio.timeout(_READY_S):
            await self.scene.stack.ready(victim)
        self.back_s.setdefault(victim, []).append(now() - began)

"""Following what becomes of the memories that items stand for: one that is forgotten leaves working memory too.

A recall asks after them as well, so this is for sessions that recall nothing, and for tenants beyond the bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass, field

from brain_server.core.reading import Reading
from brain_server.core.working_memory import WorkingMemory
from brain_server.ports.long_term import Endings
from soma_contract.errors import SomaError
from soma_contract.limits import LIMITS
from soma_contract.memory import Target, View
from soma_contract.tenant import Tenant

log = logging.getLogger(__name__)

MOST_TENANTS = 64
"""Followed at once, those used last: each costs the memory server a stream and a look at the changelog."""
_LOOK_S = 1.0
_RETRY_S = (1.0, 30.0)


@dataclass(slots=True)
class _Followed:
    """One tenant's stream: whether it runs, and which memories were found present since it began."""

    task: asyncio.Task[None]
    is_up: bool = False
    present: set[str] = field(default_factory=set)


class Following:
    """Follows the tenants whose sessions in memory hold items that became memories."""

    def __init__(
        self, working: WorkingMemory, reading: Reading, endings: Endings, most_tenants: int = MOST_TENANTS
    ) -> None:
        self._working = working
        self._reading = reading
        self._endings = endings
        self._most_tenants = most_tenants
        self._followed: dict[Tenant, _Followed] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self.look(group)
                await asyncio.sleep(_LOOK_S)

    async def look(self, group: asyncio.TaskGroup) -> None:
        """Begin and stop to follow as sessions come and go, and ask after what was not asked after yet."""
        held = self._working.memories()
        wanted = [*held][-self._most_tenants :]
        for tenant in self._followed.keys() - set(wanted):
            self._followed.pop(tenant).task.cancel()
        for tenant in wanted:
            if tenant not in self._followed:
                self._followed[tenant] = _Followed(group.create_task(self._follow(tenant)))
            elif self._followed[tenant].is_up:
                await self._ask_after(tenant, held[tenant])

    async def _follow(self, tenant: Tenant) -> None:
        wait_s = _RETRY_S[0]
        while True:
            try:
                async with aclosing(self._endings.of(tenant)) as endings:
                    async for ended in endings:
                        self._followed[tenant].is_up = True
                        wait_s = _RETRY_S[0]
                        if ended:
                            await self._working.forget(tenant, ended)
            except SomaError as error:
                log.debug("changes of a tenant cannot be followed now: %s", error.reason)
            # Whatever ends while nobody follows is asked after once the stream is back.
            self._followed[tenant].is_up = False
            self._followed[tenant].present.clear()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _RETRY_S[1])

    async def _ask_after(self, tenant: Tenant, held: Collection[str]) -> None:
        """Forget those memories that ended before they were followed; a pending one is there."""
        present = self._followed[tenant].present
        present.intersection_update(held)
        unknown = [memory_id for memory_id in held if memory_id not in present][: LIMITS.batch_items]
        if not unknown:
            return
        targets = [Target(memory_id=memory_id) for memory_id in unknown]
        try:
            reads = await self._reading.batch_get(tenant, targets, view=View.BASIC)
        except SomaError as error:
            log.debug("memories of a tenant cannot be asked after now: %s", error.reason)
            return
        present.update(memory_id for memory_id, read in zip(unknown, reads, strict=True) if read is not None)
        if lost := [memory_id for memory_id, read in zip(unknown, reads, strict=True) if read is None]:
            await self._working.forget(tenant, lost)

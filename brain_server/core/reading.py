"""The verb *read* on the brain: the memory server's answer with this brain's pending writes applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from brain_server.domain.pending import applied, places
from brain_server.ports import Clock, PendingWrites
from brain_server.ports.long_term import LongTerm, MemoryList
from soma_contract.errors import MemoryNotFoundError
from soma_contract.filters import AllOf, Filter, KeyPrefix, matches
from soma_contract.memory import Command, Memory, Remember, Target, View
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Read:
    """A memory, and whether it came from a cache or holds writes that are still pending."""

    memory: Memory
    degraded: bool = False
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads through the brain, so that an acknowledged write is seen by whoever wrote it."""

    long_term: LongTerm
    pending: PendingWrites
    clock: Clock

    async def get(
        self, tenant: Tenant, target: Target, *, view: View, as_of: datetime | None, allow_degraded: bool
    ) -> Read:
        """Read one memory.  Raises MemoryNotFoundError, and when the truth is needed and away what says so."""
        commands = [] if as_of is not None else await self._commands(tenant, target)
        if not commands:
            memory, degraded = await self.long_term.get(
                tenant, target, view=view, as_of=as_of, allow_degraded=allow_degraded
            )
            return Read(memory, degraded)
        base = None
        if not isinstance(commands[0][0], Remember):
            base = await self._base(tenant, target, view)
        memory_now = applied(base, commands)
        if memory_now is None or self._expired(memory_now):
            raise MemoryNotFoundError(memory_id=target.memory_id, key=target.key, namespace=target.namespace)
        return Read(_viewed(memory_now, view), pending=True)

    async def batch_get(self, tenant: Tenant, targets: Sequence[Target], *, view: View) -> list[Read | None]:
        """Read memories in the order of the targets, None for the missing."""
        commands = [await self._commands(tenant, target) for target in targets]
        known = [bool(each) and isinstance(each[0][0], Remember) for each in commands]
        asked = [target for target, is_known in zip(targets, known, strict=True) if not is_known]
        stored = iter(await self.long_term.batch_get(tenant, asked, view=view) if asked else ())
        answers: list[Read | None] = []
        for each, is_known in zip(commands, known, strict=True):
            base = None if is_known else next(stored)
            memory = applied(base, each)
            if memory is None or self._expired(memory):
                answers.append(None)
            else:
                answers.append(Read(_viewed(memory, view), pending=bool(each)))
        return answers

    async def list_memories(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        key_prefix: str,
        order: str,
        descending: bool,
        page_size: int,
        page_token: str,
        view: View,
    ) -> MemoryList:
        """Read one page; pending changes and deletions are applied, new memories that match lead the first page."""
        # Looked up first: a write that is delivered while the page is read may be on neither otherwise.
        waiting = await self._by_memory(tenant)
        page = await self.long_term.list_memories(
            tenant,
            filter,
            key_prefix=key_prefix,
            order=order,
            descending=descending,
            page_size=page_size,
            page_token=page_token,
            view=view,
        )
        if not waiting:
            return page
        wanted = AllOf((filter, KeyPrefix(key_prefix))) if key_prefix else filter
        listed = []
        for memory in page.memories:
            changed = applied(memory, waiting.pop(memory.memory_id, ()))
            if changed is not None and not self._expired(changed) and matches(wanted, changed):
                listed.append(changed)
        fresh = []
        if not page_token:
            for commands in waiting.values():
                memory_now = applied(None, commands)
                if memory_now is not None and not self._expired(memory_now) and matches(wanted, memory_now):
                    fresh.append(_viewed(memory_now, view))
        return MemoryList((*fresh, *listed), page.next_page_token)

    async def _commands(self, tenant: Tenant, target: Target) -> list[tuple[Command, datetime]]:
        if not self.pending.count(tenant):
            return []
        return await self.pending.touching(tenant, *places(target))

    async def _by_memory(self, tenant: Tenant) -> dict[str, list[tuple[Command, datetime]]]:
        if not self.pending.count(tenant):
            return {}
        waiting: dict[str, list[tuple[Command, datetime]]] = {}
        for command, at in await self.pending.all_of(tenant):
            place = command.memory.memory_id if isinstance(command, Remember) else places(command.target)[0]
            waiting.setdefault(place, []).append((command, at))
        return waiting

    async def _base(self, tenant: Tenant, target: Target, view: View) -> Memory | None:
        try:
            memory, _ = await self.long_term.get(tenant, target, view=view, as_of=None, allow_degraded=False)
        except MemoryNotFoundError:
            return None
        return memory

    def _expired(self, memory: Memory) -> bool:
        return memory.expires_at is not None and memory.expires_at <= self.clock.now()


def _viewed(memory: Memory, view: View) -> Memory:
    return memory if view is View.FULL else replace(memory, embedding=None)

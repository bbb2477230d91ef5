"""Working memory's file in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from brain_server.domain.item import SessionState, StoredItem, StoredSalience
from brain_server.ports import SessionContents, SessionName
from soma_contract.tenant import Tenant


class InMemorySessions:
    """Keeps sessions as long as the object lives; a second working memory on it is a restart."""

    def __init__(self) -> None:
        self._heads: dict[SessionName, SessionState] = {}
        self._items: dict[SessionName, dict[int, StoredItem]] = {}
        self._rules: dict[Tenant, str] = {}
        self.failure: Exception | None = None
        """Raised by every durable write while set."""

    async def load(self) -> SessionContents:
        """Return the names of all sessions, and the rules."""
        names = sorted(self._heads, key=lambda name: (-self._heads[name].touched_s, name.tenant.name, name.session_id))
        rules = sorted(self._rules.items(), key=lambda item: item[0].name)
        return SessionContents(tuple(names), tuple(rules))

    async def session(self, tenant: Tenant, session_id: str) -> SessionState | None:
        """Return one session, or None."""
        name = SessionName(tenant, session_id)
        return self._state(name) if name in self._heads else None

    def save(self, tenant: Tenant, change: SessionState, emptied: Sequence[int]) -> asyncio.Future[None]:
        """Write down the slots given and remove others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self.failure is not None:
            loop.call_soon(future.set_exception, self.failure)
            return future
        name = SessionName(tenant, change.session_id)
        self._heads[name] = replace(change, items=())
        items = self._items.setdefault(name, {})
        for slot in emptied:
            items.pop(slot, None)
        items.update({item.slot: item for item in change.items})
        loop.call_soon(future.set_result, None)
        return future

    def save_salience(self, tenant: Tenant, session_id: str, saliences: Sequence[StoredSalience]) -> None:
        """Write down uses."""
        items = self._items.get(SessionName(tenant, session_id), {})
        for each in saliences:
            if each.slot in items:
                items[each.slot] = items[each.slot]._replace(
                    salience=each.salience, salience_s=each.salience_s, uses=each.uses
                )

    async def save_rules(self, tenant: Tenant, rules: str) -> None:
        """Write down how a tenant's working memory behaves."""
        self._rules[tenant] = rules

    async def drop_session(self, tenant: Tenant, session_id: str) -> None:
        """Remove a session."""
        name = SessionName(tenant, session_id)
        self._heads.pop(name, None)
        self._items.pop(name, None)

    async def drop_tenant(self, tenant: Tenant) -> None:
        """Remove every session of a tenant, and its rules."""
        for name in [name for name in self._heads if name.tenant == tenant]:
            await self.drop_session(name.tenant, name.session_id)
        self._rules.pop(tenant, None)

    async def drop_long_term(self, tenant: Tenant, long_term_ids: Sequence[str]) -> None:
        """Remove the items of forgotten memories from every session of a tenant."""
        for name, items in self._items.items():
            if name.tenant == tenant:
                for slot in [slot for slot, item in items.items() if item.long_term_id in long_term_ids]:
                    del items[slot]

    def _state(self, name: SessionName) -> SessionState:
        items = self._items.get(name, {})
        return replace(self._heads[name], items=tuple(items[slot] for slot in sorted(items)))

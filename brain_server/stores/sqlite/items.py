"""Working memory in the brain's file: one row a slot, always its latest state."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence

from brain_server.domain.item import SessionState, StoredSalience
from brain_server.domain.item_codec import packed, unpacked
from brain_server.ports import SessionContents, SessionName
from brain_server.stores.sqlite.file import BrainFile, item_place
from brain_server.stores.sqlite.keyring import Keyring
from brain_server.stores.sqlite.statements import sql
from soma_contract.tenant import Tenant, admin_tenant

_REASON = "observed on behalf of an authenticated call"


class SqliteSessions:
    """Working memory's part of an open `BrainFile`."""

    def __init__(self, file: BrainFile) -> None:
        self._file = file
        self._writer = file.writer

    async def load(self) -> SessionContents:
        """Return the names of all sessions, and the rules."""

        def step(connection: sqlite3.Connection) -> SessionContents:
            names = tuple(
                SessionName(admin_tenant(tenant, reason=_REASON), session)
                for tenant, session in connection.execute(sql("sessions"))
            )
            rules = tuple(
                (admin_tenant(tenant, reason=_REASON), text) for tenant, text in connection.execute(sql("rules"))
            )
            return SessionContents(names, rules)

        return await self._writer.run(step)

    async def session(self, tenant: Tenant, session_id: str) -> SessionState | None:
        """Return one session, or None."""
        return await self._writer.run(
            lambda connection: _session(connection, self._file.keyring, tenant.name, session_id)
        )

    def save(self, tenant: Tenant, change: SessionState, emptied: Sequence[int]) -> asyncio.Future[None]:
        """Begin to write down the slots given and to remove others; the future is done after the fsync."""
        emptied = [*emptied]

        def step(connection: sqlite3.Connection) -> None:
            name, session = tenant.name, change.session_id
            connection.execute(
                sql("save_session"),
                (name, session, change.last_sequence, change.touched_s, change.persona_id, change.epoch),
            )
            connection.executemany(sql("drop_item"), [(name, session, slot) for slot in emptied])
            keys = self._file.keyring
            connection.executemany(
                sql("save_item"),
                [
                    (
                        name,
                        session,
                        item.slot,
                        item.salience,
                        item.salience_s,
                        item.uses,
                        item.long_term_id,
                        keys.current,
                        keys.seal(packed(item), item_place(name, session, item.slot)),
                    )
                    for item in change.items
                ],
            )

        return self._writer.submit(step)

    def save_salience(self, tenant: Tenant, session_id: str, saliences: Sequence[StoredSalience]) -> None:
        """Write down uses within 100 ms."""
        rows = [(each.salience, each.salience_s, each.uses, tenant.name, session_id, each.slot) for each in saliences]

        def step(connection: sqlite3.Connection) -> None:
            connection.executemany(sql("save_salience"), rows)

        self._writer.later(step)

    async def save_rules(self, tenant: Tenant, rules: str) -> None:
        """Write down how a tenant's working memory behaves."""
        await self._writer.run(_doing((sql("save_rules"), (tenant.name, rules))))

    async def drop_session(self, tenant: Tenant, session_id: str) -> None:
        """Remove a session."""
        name = (tenant.name, session_id)
        await self._writer.run(_doing((sql("drop_session_items"), name), (sql("drop_session"), name)))

    async def drop_tenant(self, tenant: Tenant) -> None:
        """Remove every session of a tenant, and its rules."""
        statements = ("drop_tenant_items", "drop_tenant_sessions", "drop_tenant_rules")
        await self._writer.run(_doing(*((sql(statement), (tenant.name,)) for statement in statements)))

    async def drop_long_term(self, tenant: Tenant, long_term_ids: Sequence[str]) -> None:
        """Remove the items of forgotten memories from every session of a tenant."""
        rows = [(sql("drop_long_term"), (tenant.name, each)) for each in long_term_ids]
        await self._writer.run(_doing(*rows))


def _doing(*statements: tuple[str, tuple[str, ...]]) -> Callable[[sqlite3.Connection], None]:
    def step(connection: sqlite3.Connection) -> None:
        for statement, values in statements:
            connection.execute(statement, values)

    return step


def _session(connection: sqlite3.Connection, keys: Keyring, tenant: str, session: str) -> SessionState | None:
    head = connection.execute(sql("session"), (tenant, session)).fetchone()
    if head is None:
        return None
    items = tuple(
        unpacked(keys.unseal(key_id, body, item_place(tenant, session, slot)), slot, *rest)
        for slot, *rest, key_id, body in connection.execute(sql("items"), (tenant, session))
    )
    last_sequence, touched_s, persona_id, epoch = head
    return SessionState(session, last_sequence, touched_s, items, persona_id, epoch)

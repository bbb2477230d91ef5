"""What the memory server said of credentials, kept for outages; a credential itself is never stored."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from brain_server.ports import KeptVerdict
from brain_server.stores.sqlite.file import BrainFile
from soma_contract.tenant import Caller

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    credential BLOB PRIMARY KEY,
    caller     TEXT    NOT NULL,
    judged_us  INTEGER NOT NULL
) WITHOUT ROWID
"""
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class SqliteVerdicts:
    """The verdicts' part of an open `BrainFile`; losing the latest to a power cut is harmless."""

    file: BrainFile

    async def load(self) -> dict[bytes, KeptVerdict]:
        """Return every kept verdict by the credential's hash."""

        def step(connection: sqlite3.Connection) -> list[tuple[bytes, str, int]]:
            connection.execute(_SCHEMA)
            return connection.execute(
                "SELECT credential, caller, judged_us FROM verdicts ORDER BY judged_us DESC LIMIT ?", (_MOST,)
            ).fetchall()

        return {
            credential: KeptVerdict(_caller(text), judged_us / 1e6)
            for credential, text, judged_us in await self.file.writer.run(step)
        }

    def keep(self, credential: bytes, verdict: KeptVerdict) -> None:
        """Keep a verdict soon."""
        row = (credential, _text(verdict.caller), int(verdict.judged_at * 1e6))
        self.file.writer.later(
            lambda connection: connection.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", row)
        )

    def drop(self, credential: bytes) -> None:
        """Forget a verdict soon: the credential was revoked or has expired."""
        self.file.writer.later(
            lambda connection: connection.execute("DELETE FROM verdicts WHERE credential = ?", (credential,))
        )


def _text(caller: Caller) -> str:
    return json.dumps(
        {
            "id": caller.credential_id,
            "tenants": sorted(caller.tenants),
            "scopes": sorted(caller.scopes),
            "namespaces": list(caller.namespaces),
            "suspended": sorted(caller.suspended),
        }
    )


def _caller(text: str) -> Caller:
    told = json.loads(text)
    return Caller(
        credential_id=told["id"],
        tenants=frozenset(told["tenants"]),
        scopes=frozenset(told["scopes"]),
        namespaces=tuple(told["namespaces"]),
        suspended=frozenset(told["suspended"]),
    )

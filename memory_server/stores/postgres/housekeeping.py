"""What has to be done to the truth now and then: sweeping, rolling, purging, compacting.

Readers do not depend on any of it; it keeps the tables small and forgets for good what was forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.journal import PostgresJournal
from memory_server.stores.postgres.migrate import KEEP_REQUESTS_DAYS
from memory_server.stores.postgres.pools import Pools
from soma_contract.errors import SomaError
from soma_contract.tenant import admin_tenant

_log = logging.getLogger("soma.housekeeping")

BATCH = 1_000
TOMBSTONE_DAYS = 30
CHANGELOG_DAYS = 30
# An outbox keeps a request for seven days before it is first sent.
_OUTBOX_DAYS = 8


@dataclass(frozen=True, slots=True)
class PostgresHousekeeping:
    """Runs on every server; whoever comes first does the work."""

    pools: Pools
    journal: PostgresJournal
    sweep_every_s: float = 10.0
    purge_every_s: float = 3_600.0

    async def run(self) -> None:
        """Keep house for ever; ends only by cancellation.  A failing store is tried again the next time."""
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        while True:
            try:
                await self.sweep()
                if loop.time() >= purge_at:
                    purge_at = loop.time() + self.purge_every_s
                    await self.purge()
            except SomaError as error:
                _log.warning("housekeeping waits: %s", error.reason, extra={"reason": error.reason})
            await asyncio.sleep(self.sweep_every_s)

    async def sweep(self) -> int:
        """Forget the memories that have expired, with changelog and index jobs; answers how many."""
        swept = 0
        while True:
            async with self.pools.bulk.worker() as connection:
                rows = await connection.fetch(sql.query("expired_memories"), BATCH)
            by_tenant: dict[str, list[str]] = defaultdict(list)
            for row in rows:
                by_tenant[row["tenant"]].append(str(row["memory_id"]))
            done = 0
            for name, memory_ids in by_tenant.items():
                tenant = admin_tenant(name, reason="expired memories of every tenant are swept")
                done += await self.journal.sweep(tenant, memory_ids)
            swept += done
            # None done although some were found: another server has them in hand.
            if len(rows) < BATCH or not done:
                return swept

    async def purge(self) -> None:
        """Roll the days of request ids; delete old answers, tombstones and changes."""
        async with self.pools.bulk.worker() as connection:
            # May give up on a lock and be tried again in an hour: rows of a day without partition have a place too.
            await connection.fetchval(sql.query("roll_requests"), KEEP_REQUESTS_DAYS + _OUTBOX_DAYS)
        await self._delete_all("purge_requests", KEEP_REQUESTS_DAYS)
        await self._delete_all("purge_tombstones", TOMBSTONE_DAYS)
        name = ""
        while True:
            async with self.pools.bulk.worker() as connection:
                name = await connection.fetchval(sql.query("next_changelog_tenant"), name)
            if name is None:
                return
            await self._delete_all("compact_changelog", CHANGELOG_DAYS, name)

    async def _delete_all(self, query: str, days: int, *leading: str) -> None:
        """Delete in small transactions until a batch is not full."""
        while True:
            async with self.pools.bulk.worker() as connection:
                status: str = await connection.execute(sql.query(query), *leading, days, BATCH)
            if int(status.rsplit(maxsplit=1)[-1]) < BATCH:
                return

"""Import jobs on Postgres."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from memory_server.bulk_ports import Prepared
from memory_server.domain.imports import Committed, Item, Lease
from memory_server.ports import Analyse
from memory_server.stores.import_deciding import prepared
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.batches import LostRaceError
from memory_server.stores.postgres.import_batches import LEASE_HELD, ImportBatches, checked
from memory_server.stores.postgres.import_rows import JOB_COLUMNS, internal_refusal, job_of, refusal_of
from memory_server.stores.postgres.pools import Pools
from soma_contract.errors import (
    ImportNotFoundError,
    InternalError,
    OffsetGapError,
    RequestIdReusedError,
    WriteConflictError,
)
from soma_contract.ids import new_memory_id
from soma_contract.records import JOB_KEPT, ImportJob, ImportOptions, ImportState, Refused
from soma_contract.tenant import Tenant

_TRIES = 5
_LOCK_S = 1.0


@dataclass(frozen=True, slots=True)
class PostgresImports:
    """See :class:`memory_server.bulk_ports.ImportStore`; ``profile`` is what this server's embedder makes."""

    pools: Pools
    analyse: Analyse
    profile: str
    versions_kept: int = 20

    async def create(self, tenant: Tenant, options: ImportOptions) -> ImportJob:
        """Make a job, or find the one of the same request id."""
        import_id, digest = new_memory_id(), _digest(options)
        async with self.pools.bulk.tenant(tenant) as connection:
            await connection.execute(sql.query("forget_imports"), tenant.name, JOB_KEPT)
            await connection.execute(
                sql.query("create_import"),
                tenant.name,
                import_id,
                options.on_conflict.value,
                options.max_refused,
                options.dry_run,
                options.request_id,
                digest,
                options.label,
            )
            row = await connection.fetchrow(
                sql.filled("get_import", columns=JOB_COLUMNS), tenant.name, import_id, options.request_id
            )
        if row is None:
            raise WriteConflictError
        if row["request_hash"] != digest:
            raise RequestIdReusedError(request_id=options.request_id)
        return job_of(row, row["waiting"])

    async def get(self, tenant: Tenant, import_id: str) -> ImportJob | None:
        """Read a job."""
        async with self.pools.bulk.tenant(tenant) as connection:
            row = await connection.fetchrow(sql.filled("get_import", columns=JOB_COLUMNS), tenant.name, import_id, "")
        return None if row is None else job_of(row, row["waiting"])

    async def cancel(self, tenant: Tenant, import_id: str) -> ImportJob | None:
        """End a job if it is active."""
        async with self.pools.bulk.tenant(tenant) as connection:
            await connection.execute(
                sql.filled("end_import", columns=JOB_COLUMNS), tenant.name, import_id, ImportState.CANCELLED.value, -1
            )
            await connection.execute(sql.query("forget_seen"), tenant.name, import_id)
        return await self.get(tenant, import_id)

    async def refusals(self, tenant: Tenant, import_id: str, *, after: int, limit: int) -> list[Refused]:
        """Read a page of refusals."""
        async with self.pools.bulk.tenant(tenant) as connection:
            rows = await connection.fetch(sql.query("list_import_refusals"), tenant.name, import_id, after, limit)
        return [refusal_of(row) for row in rows]

    async def lease(self, tenant: Tenant, import_id: str) -> tuple[ImportJob, Lease] | None:
        """Take the lease of a job."""
        async with self.pools.bulk.tenant(tenant) as connection:
            row = await connection.fetchrow(
                sql.filled("lease_import", columns=JOB_COLUMNS), tenant.name, import_id, LEASE_HELD
            )
        return None if row is None else (job_of(row), Lease(import_id, row["fencing"]))

    async def check(self, tenant: Tenant, lease: Lease) -> None:
        """Raise ImportLeaseLostError or ImportNotActiveError unless the lease is still held."""
        async with self.pools.bulk.tenant(tenant) as connection:
            query = sql.filled("lock_import", columns=JOB_COLUMNS).replace("FOR UPDATE", "")
            checked(await connection.fetchrow(query, tenant.name, lease.import_id), lease)

    def prepare(self, item: Item) -> Prepared:
        """Do what needs no row."""
        return prepared(item, self.analyse)

    async def commit(self, tenant: Tenant, lease: Lease, offset: int, records: Sequence[Prepared]) -> Committed:
        """Write records in one transaction; one that only the store refuses is found by halving and refused alone."""
        try:
            return await self._tried(tenant, lease, offset, records)
        except InternalError as error:
            if len(records) == 1:
                return await self._tried(tenant, lease, offset, [internal_refusal(error)])
        middle = len(records) // 2
        first = await self.commit(tenant, lease, offset, records[:middle])
        if first.job.state is not ImportState.ACTIVE:
            return first
        rest = await self.commit(tenant, lease, offset + middle, records[middle:])
        return Committed(rest.job, first.refused + rest.refused)

    async def finish(self, tenant: Tenant, lease: Lease, total: int) -> ImportJob:
        """End a job successfully, if ``total`` records were committed."""
        async with self.pools.bulk.tenant(tenant) as connection:
            row = await connection.fetchrow(
                sql.filled("lock_import", columns=JOB_COLUMNS), tenant.name, lease.import_id
            )
            job = checked(row, lease)
            if job.committed_offset != total:
                raise OffsetGapError(expected_offset=str(job.committed_offset))
            await connection.execute(
                sql.filled("end_import", columns=JOB_COLUMNS),
                tenant.name,
                lease.import_id,
                ImportState.SUCCEEDED.value,
                total,
            )
            await connection.execute(sql.query("forget_seen"), tenant.name, lease.import_id)
        ended = await self.get(tenant, lease.import_id)
        if ended is None:
            raise ImportNotFoundError(import_id=lease.import_id)
        return ended

    async def waiting(self, tenant: Tenant, at_most: int) -> int:
        """Count the tenant's index jobs that wait, up to a number."""
        async with self.pools.bulk.tenant(tenant) as connection:
            count: int = await connection.fetchval(sql.query("waiting_jobs"), tenant.name, at_most)
        return count

    async def _tried(self, tenant: Tenant, lease: Lease, offset: int, records: Sequence[Prepared]) -> Committed:
        batches = ImportBatches(self.pools.bulk, self.profile, self.versions_kept)
        for attempt in range(_TRIES):
            try:
                return await batches.commit(tenant, lease, offset, records, lock_s=_LOCK_S * (attempt + 1))
            except (LostRaceError, WriteConflictError):
                continue
        raise WriteConflictError


def _digest(options: ImportOptions) -> bytes:
    named = f"{options.on_conflict.value}\0{options.max_refused}\0{options.dry_run}\0{options.label}"
    return hashlib.blake2b(named.encode(), digest_size=16, person=b"soma-import").digest()

"""The index queue in memory."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from memory_server.ports import Collection, CollectionLostError, IndexJob, IndexLag, StoredVectors
from memory_server.stores.inmemory.journal_state import InMemoryTruth, Job, TenantRows
from soma_contract.errors import EmbeddingProfileMismatchError
from soma_contract.tenant import Tenant, admin_tenant

OFTEN = 3
POISONED = 8


@dataclass(slots=True)
class InMemoryIndexQueue:
    """See :class:`memory_server.ports.IndexQueue`."""

    truth: InMemoryTruth
    prefix: str = "soma_memories"
    served: Counter[str] = field(default_factory=Counter)

    async def claim(self, *, limit: int, lease_s: float, profile: str = "") -> list[IndexJob]:
        """Claim due jobs in turn from all tenants, the oldest of each; one that failed often comes alone."""
        now, lease = self.truth.clock.now(), str(uuid.uuid4())
        due = {
            name: sorted(
                (job.due_at, memory_id)
                for memory_id, job in rows.jobs.items()
                if job.due_at is not None and job.due_at <= now and job.attempts < OFTEN
            )
            for name, rows in self.truth.tenants.items()
        }
        ranked = sorted(
            (turn, name, memory_id)
            for name, jobs in due.items()
            for turn, (_, memory_id) in enumerate(jobs, start=self.served[name])
        )
        chosen = [(name, memory_id) for _, name, memory_id in ranked[:limit]]
        if not chosen:
            chosen = [
                (name, memory_id)
                for name, rows in self.truth.tenants.items()
                for memory_id, job in rows.jobs.items()
                if job.due_at is not None and job.due_at <= now
            ][:1]
        self.served.update(name for name, _ in chosen)
        return [self._claimed(name, memory_id, now, lease_s, lease, profile) for name, memory_id in chosen]

    def _claimed(self, name: str, memory_id: str, now: datetime, lease_s: float, lease: str, profile: str) -> IndexJob:
        rows = self.truth.tenants[name]
        job = rows.jobs[memory_id]
        job.due_at = job.leased_until = now + timedelta(seconds=lease_s)
        job.lease = lease
        job.attempts += 1
        tenant = admin_tenant(name, reason="the indexer works for every tenant")
        row = rows.rows[memory_id]
        if not row.lives(now):
            return IndexJob(tenant, memory_id, row.memory.version, job.attempts, None, None, "", lease)
        profile = profile or self.truth.profiles.get(name, ("", 0))[0]
        vectors = next(
            (
                kept
                for (owner, made_with), (version, kept) in rows.vectors.items()
                if owner == memory_id and version == row.memory.version and profile in ("", made_with)
            ),
            None,
        )
        text = self.truth.analyse(row.memory).keyword_text
        return IndexJob(tenant, memory_id, row.memory.version, job.attempts, row.memory, vectors, text, lease)

    async def put_vectors(self, profile: str, rows: Sequence[tuple[IndexJob, StoredVectors]]) -> None:
        """Keep the vectors of versions that are still current."""
        for job, vectors in rows:
            owner = self.truth.of(job.tenant)
            row = owner.rows.get(job.memory_id)
            if row is not None and not row.deleted and row.memory.version == job.version:
                owner.vectors[job.memory_id, profile] = job.version, vectors

    async def settle(self, jobs: Sequence[IndexJob], collection: Collection | None) -> None:
        """Mark the claimed versions as indexed; a row that moved on meanwhile keeps its job."""
        now = self.truth.clock.now()
        known = self.truth.collections.get(collection.name) if collection is not None else None
        current = known is not None and collection is not None and known.epoch == collection.epoch
        for one in jobs:
            job = self._leased(one)
            if job is None or (one.memory is not None and collection is None):
                continue
            done = job.version == one.version and (one.memory is None or current)
            job.lease, job.leased_until, job.attempts, job.poisoned = "", None, 0, False
            job.due_at = None if done else now
            if done and one.memory is None:
                del self.truth.of(one.tenant).jobs[one.memory_id]
            elif done and collection is not None:
                job.indexed_version, job.indexed_epoch, job.moved_at = one.version, collection.epoch, now
                self.truth.collections[collection.name] = replace(collection, filled=True)

    async def postpone(self, jobs: Sequence[IndexJob], reason: str, *, counts: bool) -> None:
        """Give jobs back with backoff; ``counts`` is False while a whole store is away."""
        now = self.truth.clock.now()
        for one in jobs:
            job = self._leased(one)
            if job is None:
                continue
            pause_s = 1.0
            if counts:
                job.poisoned = job.attempts >= POISONED
                pause_s = 3600.0 if job.poisoned else min(300.0, 2.0 ** (job.attempts - 1))
            else:
                job.attempts = max(0, job.attempts - 1)
            job.due_at, job.lease, job.leased_until = now + timedelta(seconds=pause_s), "", None

    def _leased(self, one: IndexJob) -> Job | None:
        job = self.truth.of(one.tenant).jobs.get(one.memory_id)
        return job if job is not None and one.lease and job.lease == one.lease else None

    async def lag(self, tenant: Tenant | None = None) -> IndexLag:
        """Read how far the index is behind."""
        now = self.truth.clock.now()
        names = [tenant.name] if tenant is not None else list(self.truth.tenants)
        jobs = [
            job
            for name in names
            for job in self.truth.tenants.get(name, TenantRows()).jobs.values()
            if job.due_at is not None
        ]
        waiting = [job for job in jobs if not job.poisoned]
        oldest = min((job.queued_at for job in waiting), default=now)
        return IndexLag(len(waiting), max(0.0, (now - oldest).total_seconds()), len(jobs) - len(waiting))

    async def active_collection(self, tenant: Tenant, profile: str, dimension: int) -> Collection:
        """Read which collection a tenant's memories are in, creating its entry if needed."""
        stored, configured = self.truth.profiles.setdefault(tenant.name, (profile, dimension)), (profile, dimension)
        if stored != configured:
            raise EmbeddingProfileMismatchError(
                stored=f"{stored[0]} ({stored[1]})", configured=f"{profile} ({dimension})", tenant=tenant.name
            )
        owner = tenant.name if tenant.name in self.truth.dedicated else ""
        name = "_".join(part for part in (self.prefix, profile, owner) if part)
        if name not in self.truth.collections:
            self.truth.epochs += 1
            self.truth.collections[name] = Collection(name, self.truth.epochs, profile, dimension, owner)
        return self.truth.collections[name]

    async def collections(self) -> list[Collection]:
        """Read all active collections."""
        return [self.truth.collections[name] for name in sorted(self.truth.collections)]

    async def new_epoch(self, collection: Collection) -> Collection:
        """Declare a collection lost: its rows count as un-indexed and are queued again."""
        current = self.truth.collections.get(collection.name)
        if current is None:
            raise CollectionLostError(collection.name)
        if current.epoch != collection.epoch:
            return current
        self.truth.epochs += 1
        fresh = replace(current, epoch=self.truth.epochs, filled=False)
        self.truth.collections[collection.name] = fresh
        now = self.truth.clock.now()
        for name, rows in self.truth.tenants.items():
            if fresh.tenant_name not in ("", name) or (not fresh.tenant_name and name in self.truth.dedicated):
                continue
            for job in rows.jobs.values():
                if job.due_at is None:
                    job.due_at = job.queued_at = now
        return fresh

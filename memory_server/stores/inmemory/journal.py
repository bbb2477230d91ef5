"""The journal in memory: the same rules, a dictionary for a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memory_server.ports import LISTING_ORDERS, Listing, MemoryPage
from memory_server.stores.calls import Answer, Call, Decided, decide
from memory_server.stores.deciding import Scene
from memory_server.stores.inmemory.journal_state import InMemoryTruth, Job, TenantRows
from memory_server.stores.requests import Request
from memory_server.stores.standings import Standing
from soma_contract.errors import (
    BudgetSpentError,
    FieldViolationError,
    PageTokenInvalidError,
    RequestIdReusedError,
    SomaError,
)
from soma_contract.filters import Filter
from soma_contract.memory import Command, Memory, Origin, Target, Vector, View, Written
from soma_contract.tenant import Tenant

_TIMES = ("created_at", "updated_at", "occurred_at")


@dataclass(slots=True)
class InMemoryJournal:
    """See :class:`memory_server.ports.Journal`."""

    truth: InMemoryTruth
    versions_kept: int = 20

    async def write(
        self,
        tenant: Tenant,
        commands: Sequence[Command],
        *,
        origin: Origin | None = None,
        atomic: bool = False,
        deadline_s: float | None = None,
    ) -> list[Written | SomaError]:
        """Commit commands in order; each answers what it did or why it was refused."""
        if deadline_s is not None and deadline_s <= 0:
            raise BudgetSpentError(stage="write")
        if not commands:
            return []
        rows = self.truth.of(tenant)
        call = Call.of([Request.of(command, origin) for command in commands], self.truth.analyse, atomic=atomic)

        def known(request: Request) -> Answer | None:
            kept = rows.answers.get(request.command.request_id)
            if kept is None or kept[0] == request.fingerprint:
                return kept[1] if kept is not None else None
            return RequestIdReusedError(request_id=request.command.request_id)

        now = self.truth.clock.now()
        decided = decide(Scene.of(now, rows.named(call.requests)), [call], known)
        (outcome,) = decided.answers(rows.revision)
        self._apply(rows, decided, now)
        if isinstance(outcome, SomaError):
            raise outcome
        return outcome

    def _apply(self, rows: TenantRows, decided: Decided, now: datetime) -> None:
        scene, before = decided.scene, rows.revision
        for request, verdict in decided.records:
            rows.answers[request.command.request_id] = request.fingerprint, verdict.written(before)
        for memory_id in scene.ended:
            rows.versions.pop(memory_id, None)
            for key in [key for key in rows.vectors if key[0] == memory_id]:
                del rows.vectors[key]
        for memory_id, row in scene.changed.items():
            self._replace(rows, scene, memory_id, row)
            job = rows.jobs.setdefault(memory_id, Job(0, None, now, now))
            if job.due_at is None:
                job.queued_at = now
            job.version, job.moved_at, job.indexed_epoch = row.memory.version, now, 0
            job.due_at, job.attempts, job.poisoned = max(now, job.leased_until or now), 0, False
        rows.changelog += [(before + entry.step, entry) for entry in scene.entries]
        rows.revision += scene.step

    def _replace(self, rows: TenantRows, scene: Scene, memory_id: str, row: Standing) -> None:
        old = rows.rows.get(memory_id)
        kept = rows.versions.setdefault(memory_id, [])
        if old is not None and not old.deleted and memory_id not in scene.ended:
            kept.append(old.memory)
            if _embedded_alike(old.memory, row.memory):
                for key, (version, vectors) in rows.vectors.items():
                    if key[0] == memory_id and version == old.memory.version:
                        rows.vectors[key] = row.memory.version, vectors
        kept += [passed.memory for passed in scene.passed if passed.memory.memory_id == memory_id]
        rows.versions[memory_id] = [one for one in kept if one.version > row.memory.version - self.versions_kept]
        rows.replace(row)
        rows.terms.pop(memory_id, None)
        if not row.deleted:
            rows.terms[memory_id] = self.truth.analyse(row.memory)

    async def get(
        self,
        tenant: Tenant,
        targets: Sequence[Target],
        *,
        as_of: datetime | None = None,
        view: View = View.BASIC,
    ) -> list[Memory | None]:
        """Read memories in the order of the targets; absent, deleted or expired ones are None."""
        rows, now = self.truth.of(tenant), self.truth.clock.now()
        found: list[Memory | None] = []
        for target in targets:
            named = [row.memory for row in rows.rows.values() if row.lives(now) and _names(target, row.memory)]
            memory = min(named, key=lambda memory: memory.memory_id, default=None)
            if memory is not None and as_of is not None and memory.updated_at is not None and memory.updated_at > as_of:
                older = [
                    version
                    for version in rows.versions.get(memory.memory_id, ())
                    if version.updated_at is not None and version.updated_at <= as_of
                ]
                memory = max(older, key=lambda version: version.version, default=None)
            found.append(_viewed(rows, memory, view) if memory is not None else None)
        return found

    async def list_memories(self, tenant: Tenant, listing: Listing) -> MemoryPage:
        """Read one page of the memories that match."""
        if listing.order not in LISTING_ORDERS:
            raise FieldViolationError.at("order", f"must be one of {', '.join(LISTING_ORDERS)}")
        rows = self.truth.of(tenant)
        ordered = sorted(
            rows.living(self.truth.clock.now(), listing.filter),
            key=lambda memory: _place(listing.order, memory),
            reverse=listing.descending,
        )
        if listing.after:
            last = _last_place(listing)
            ordered = [
                memory
                for memory in ordered
                if (
                    _place(listing.order, memory) < last if listing.descending else _place(listing.order, memory) > last
                )
            ]
        page = tuple(_viewed(rows, memory, listing.view) for memory in ordered[: listing.limit])
        if len(ordered) <= listing.limit:
            return MemoryPage(page)
        return MemoryPage(page, listing.end(page[-1]))

    async def history(self, tenant: Tenant, memory_id: str, *, before_version: int | None, limit: int) -> list[Memory]:
        """Read the kept versions of a memory, newest first."""
        rows = self.truth.of(tenant)
        row = rows.rows.get(memory_id)
        if row is None or not row.lives(self.truth.clock.now()):
            return []
        versions = [row.memory, *reversed(rows.versions.get(memory_id, ()))]
        wanted = [one for one in versions if before_version is None or one.version < before_version]
        return [_viewed(rows, one, View.BASIC) for one in wanted[:limit]]

    async def matching_ids(self, tenant: Tenant, filter: Filter, limit: int) -> list[str]:
        """Read the ids of up to ``limit`` live memories that match, in id order."""
        living = self.truth.of(tenant).living(self.truth.clock.now(), filter)
        return [memory.memory_id for memory in living][:limit]

    async def revision(self, tenant: Tenant) -> int:
        """Read the tenant's last committed revision; 0 for none."""
        return self.truth.of(tenant).revision


def _embedded_alike(old: Memory, new: Memory) -> bool:
    return (old.text, old.actor, old.embedding, old.embedding_model) == (
        new.text,
        new.actor,
        new.embedding,
        new.embedding_model,
    )


def _names(target: Target, memory: Memory) -> bool:
    if target.memory_id:
        return memory.memory_id == target.memory_id
    if target.key:
        return (memory.namespace, memory.key) == (target.namespace, target.key)
    return (memory.namespace, memory.coordinate) == (target.namespace, target.coordinate)


def _viewed(rows: TenantRows, memory: Memory, view: View) -> Memory:
    if view is not View.FULL:
        return replace(memory, embedding=None)
    if memory.embedding is not None:
        return memory
    for (memory_id, _), (version, vectors) in rows.vectors.items():
        if memory_id == memory.memory_id and version == memory.version:
            return replace(memory, embedding=Vector.of(vectors.dense))
    return memory


def _place(order: str, memory: Memory) -> tuple[bool, object, str]:
    """Where a memory stands in a list: missing values first, ties by id."""
    if order == "memory_id":
        return True, "", memory.memory_id
    value = getattr(memory, order)
    return value is not None, value if value is not None else "", memory.memory_id


def _last_place(listing: Listing) -> tuple[bool, object, str]:
    if listing.order == "memory_id":
        return True, "", listing.after[0]
    try:
        value, memory_id = listing.after
        if listing.order == "key":
            return True, value, memory_id
        if not value:
            return False, "", memory_id
        return True, datetime.fromisoformat(value) if listing.order in _TIMES else float(value), memory_id
    except ValueError:
        raise PageTokenInvalidError from None

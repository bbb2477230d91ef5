"""What the in-memory twins of the journal, the recall source and the index queue share: the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from memory_server.ports import Analyse, Clock, Collection, KeywordTerms, StoredVectors
from memory_server.stores.calls import Answer
from memory_server.stores.requests import Request, moved_keys
from memory_server.stores.standings import Entry, Standing
from soma_contract.filters import Filter, matches
from soma_contract.memory import Memory
from soma_contract.tenant import Tenant


@dataclass(slots=True)
class Job:
    """What the index should hold of a memory, and what it holds; a job while ``due_at`` is set."""

    version: int
    due_at: datetime | None
    queued_at: datetime
    moved_at: datetime
    leased_until: datetime | None = None
    lease: str = ""
    attempts: int = 0
    poisoned: bool = False
    indexed_version: int = 0
    indexed_epoch: int = 0


@dataclass(slots=True)
class TenantRows:
    """All that belongs to one tenant."""

    rows: dict[str, Standing] = field(default_factory=dict)
    holders: dict[tuple[str, str], str] = field(default_factory=dict)
    terms: dict[str, KeywordTerms] = field(default_factory=dict)
    versions: dict[str, list[Memory]] = field(default_factory=dict)
    vectors: dict[tuple[str, str], tuple[int, StoredVectors]] = field(default_factory=dict)
    answers: dict[str, tuple[bytes, Answer]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    changelog: list[tuple[int, Entry]] = field(default_factory=list)
    revision: int = 0

    def named(self, requests: Sequence[Request]) -> list[Standing]:
        """The rows that the requests name by id, key or coordinate."""
        ids: set[str] = set()
        for request in requests:
            ids.update(request.ids)
            ids.update(self.holders[key] for key in request.keys if key in self.holders)
            for namespace, coordinate in request.places:
                place = namespace, coordinate
                ids.update(
                    memory_id
                    for memory_id, row in self.rows.items()
                    if (row.memory.namespace, row.memory.coordinate) == place and not row.deleted
                )
        moved = moved_keys(requests, (row.memory for row in self.rows.values()))
        ids.update(self.holders[pair] for pair in moved if pair in self.holders)
        return [self.rows[memory_id] for memory_id in sorted(ids) if memory_id in self.rows]

    def replace(self, row: Standing) -> None:
        """Put a row in the place of the one of its id."""
        memory_id = row.memory.memory_id
        old = self.rows.get(memory_id)
        if old is not None and self.holders.get((old.memory.namespace, old.memory.key)) == memory_id:
            del self.holders[old.memory.namespace, old.memory.key]
        if row.memory.key and not row.deleted:
            self.holders[row.memory.namespace, row.memory.key] = memory_id
        self.rows[memory_id] = row

    def living(self, now: datetime, filter: Filter) -> Iterator[Memory]:
        """The memories that readers see and that match, in id order."""
        for memory_id in sorted(self.rows):
            row = self.rows[memory_id]
            if row.lives(now) and matches(filter, row.memory):
                yield row.memory

    def current_vectors(self, memory: Memory, profile: str) -> StoredVectors | None:
        """The vectors of a memory's current version."""
        version, vectors = self.vectors.get((memory.memory_id, profile), (0, None))
        return vectors if version == memory.version else None


@dataclass(slots=True)
class InMemoryTruth:
    """The truth in memory; give one to all the twins of a server."""

    clock: Clock
    analyse: Analyse
    tenants: dict[str, TenantRows] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    profiles: dict[str, tuple[str, int]] = field(default_factory=dict)
    dedicated: set[str] = field(default_factory=set)
    epochs: int = 0

    def of(self, tenant: Tenant) -> TenantRows:
        """The rows of a tenant."""
        return self.tenants.setdefault(tenant.name, TenantRows())

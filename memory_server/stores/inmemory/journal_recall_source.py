"""What recall reads from the truth, in memory: everything is looked at, nothing is looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from memory_server.domain.bm25 import bm25, idf
from memory_server.domain.quantile_sketch import QuantileSketch
from memory_server.ports import OpenRows, Overlay, PoolRow, TermStats
from memory_server.stores.inmemory.journal_state import InMemoryTruth, TenantRows
from memory_server.stores.scopes import namespaces_of
from soma_contract.filters import EVERYTHING, Filter, LabelField, LabelIn, matches
from soma_contract.memory import Memory, Target
from soma_contract.tenant import Tenant

OPEN_WINDOW = 16
"""So many rows that the index may not hold are read along with a pool."""
RECENT = timedelta(seconds=10)
"""An index may need this long to show what it took in."""


@dataclass(slots=True)
class InMemoryRecallSource:
    """See :class:`memory_server.ports.RecallSource`."""

    truth: InMemoryTruth
    window: int = 2_000

    async def overlay(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        terms: Sequence[str],
        epoch: int,
        profile: str,
        keyword_limit: int = 50,
        vector_limit: int = 2_000,
        unembedded_limit: int = 16,
    ) -> Overlay:
        """Search the rows that the index does not hold, or only took in within the last 10 s."""
        rows, now = self.truth.of(tenant), self.truth.clock.now()
        searched = max(epoch, self._epoch(tenant, profile), 1)
        open_ids = _open_ids(rows, searched, now)
        truncated = len(open_ids) > self.window
        behind = 0
        found: list[Memory] = []
        for memory_id in open_ids:
            row = rows.rows.get(memory_id)
            if row is None or not row.lives(now) or not matches(filter, row.memory):
                continue
            found.append(row.memory)
            behind += rows.jobs[memory_id].indexed_epoch < searched
        scored = self._scored(rows, filter, found, terms)
        newest = found[: self.window]
        embedded = [memory for memory in newest if rows.current_vectors(memory, profile)][:vector_limit]
        fresh = [memory for memory in newest if not rows.current_vectors(memory, profile)][:unembedded_limit]
        _, dense = _stacked(rows, embedded, profile)
        return Overlay(
            pending_rows=min(behind, 10_000),
            keyword_ids=tuple(memory_id for memory_id, _ in scored[:keyword_limit]),
            vector_ids=tuple(memory.memory_id for memory in embedded),
            vectors=dense,
            unembedded=tuple(fresh),
            truncated=truncated,
        )

    async def importance_counts(self, tenant: Tenant, namespace: str, *, fresh_s: float) -> Mapping[int, int]:
        """Count a namespace's importances by bucket of a QuantileSketch."""
        sketch = QuantileSketch()
        for row in self.truth.of(tenant).rows.values():
            memory = row.memory
            if not row.deleted and memory.namespace == namespace and memory.importance is not None:
                sketch.add(memory.importance)
        return sketch.to_counts()

    async def keyword_search(
        self, tenant: Tenant, filter: Filter, *, terms: Sequence[str], limit: int
    ) -> list[tuple[str, float]]:
        """Search all live rows by BM25 over stored terms; (id, score), best first."""
        rows = self.truth.of(tenant)
        living = list(rows.living(self.truth.clock.now(), filter))
        return self._scored(rows, filter, living, terms)[:limit]

    async def vector_scan(
        self, tenant: Tenant, filter: Filter, *, profile: str, limit: int
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Read (ids, dense vectors) of up to ``limit`` matching rows."""
        rows = self.truth.of(tenant)
        living = rows.living(self.truth.clock.now(), filter)
        return _stacked(rows, [memory for memory in living if rows.current_vectors(memory, profile)][:limit], profile)

    async def pool(
        self,
        tenant: Tenant,
        filter: Filter,
        ids: Sequence[str],
        *,
        terms: Sequence[str],
        profile: str,
        neighbours: bool,
        details: bool = True,
        exact: Target | None = None,
        exact_text: str = "",
        epoch: int | None = None,
    ) -> tuple[list[PoolRow], TermStats]:
        """Re-read candidates and bring what scoring needs."""
        rows, now = self.truth.of(tenant), self.truth.clock.now()
        searched = max(epoch or 0, self._epoch(tenant, profile), 1)
        opened = [] if epoch is None else _open_ids(rows, searched, now)
        more = len(opened) > OPEN_WINDOW
        wanted = {*ids, *(() if more else opened)}
        found: list[Memory] = []
        for memory in rows.living(now, filter):
            named = exact is not None and _names(exact, memory)
            if memory.memory_id in wanted or named or (exact_text and memory.text == exact_text):
                found.append(memory)
        near = list(_neighbours(rows, found)) if neighbours else []
        near = [memory for memory in near if rows.rows[memory.memory_id].lives(now) and matches(filter, memory)]
        pool = [_pool_row(rows, memory, terms, profile, neighbour=False) for memory in found]
        pool += [_pool_row(rows, memory, terms, profile, neighbour=True) for memory in near]
        statistics = _statistics(rows, filter, terms)
        if epoch is not None:
            among = () if more else tuple(row.memory.memory_id for row in pool if row.memory.memory_id in set(opened))
            behind = sum(rows.jobs[memory_id].indexed_epoch < searched for memory_id in among)
            statistics = replace(statistics, open=OpenRows(among, behind, more))
        return pool, statistics

    def _epoch(self, tenant: Tenant, profile: str) -> int:
        fitting = [
            collection
            for collection in self.truth.collections.values()
            if collection.profile == profile and collection.tenant_name in ("", tenant.name)
        ]
        return max(fitting, key=lambda one: one.tenant_name).epoch if fitting else 0

    def _scored(
        self, rows: TenantRows, filter: Filter, memories: Sequence[Memory], terms: Sequence[str]
    ) -> list[tuple[str, float]]:
        times = Counter(terms)
        statistics = _statistics(rows, filter, list(times))
        weights = idf(statistics.rows, statistics.frequencies) * np.array(list(times.values()), np.float64)
        hits = []
        for memory in memories:
            counts = _counts(rows, memory, list(times))
            if counts.any():
                lengths = np.array([rows.terms[memory.memory_id].length])
                score = float(bm25(counts[None, :], lengths, weights, statistics.mean_length)[0])
                hits.append((memory.memory_id, score))
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _open_ids(rows: TenantRows, searched: int, now: datetime) -> list[str]:
    """Newest first: written since, then of lost collections, then just taken in."""
    behind = [
        (job.indexed_epoch, -job.moved_at.timestamp(), memory_id)
        for memory_id, job in rows.jobs.items()
        if job.indexed_epoch < searched
    ]
    recent = [
        (-job.moved_at.timestamp(), memory_id)
        for memory_id, job in rows.jobs.items()
        if job.indexed_epoch >= searched and job.moved_at > now - RECENT
    ]
    return [memory_id for *_, memory_id in sorted(behind)] + [memory_id for _, memory_id in sorted(recent)]


def _counts(rows: TenantRows, memory: Memory, terms: Sequence[str]) -> NDArray[np.int32]:
    stored = rows.terms[memory.memory_id]
    counts = dict(zip(stored.terms, stored.counts, strict=True))
    return np.array([counts.get(term, 0) for term in terms], np.int32)


def _statistics(rows: TenantRows, filter: Filter, terms: Sequence[str]) -> TermStats:
    namespaces = namespaces_of(filter)
    scope = LabelIn(LabelField.NAMESPACE, namespaces) if namespaces is not None else EVERYTHING
    counted = [rows.terms[memory_id] for memory_id in rows.terms if matches(scope, rows.rows[memory_id].memory)]
    frequencies = [sum(term in one.terms for one in counted) for term in terms]
    mean = sum(one.length for one in counted) / len(counted) if counted else 0.0
    return TermStats(len(counted), mean, np.array(frequencies, np.int64))


def _stacked(rows: TenantRows, memories: Iterable[Memory], profile: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    ids, dense = [], []
    for memory in memories:
        vectors = rows.current_vectors(memory, profile)
        if vectors is not None:
            ids.append(memory.memory_id)
            dense.append(vectors.dense)
    return tuple(ids), np.stack(dense) if dense else np.zeros((0, 0), np.float32)


def _pool_row(rows: TenantRows, memory: Memory, terms: Sequence[str], profile: str, *, neighbour: bool) -> PoolRow:
    length = rows.terms[memory.memory_id].length
    vectors = rows.current_vectors(memory, profile)
    return PoolRow(memory, vectors, _counts(rows, memory, terms), length, neighbour)


def _neighbours(rows: TenantRows, found: Sequence[Memory]) -> Iterable[Memory]:
    """The turns directly before and after each memory in its session, those already found aside."""
    have = {memory.memory_id for memory in found}
    near: dict[str, Memory] = {}
    for memory in found:
        if not memory.session_id or memory.sequence is None:
            continue
        turns = [
            row.memory
            for row in rows.rows.values()
            if not row.deleted
            and (row.memory.session_id, row.memory.namespace) == (memory.session_id, memory.namespace)
            and row.memory.sequence is not None
        ]
        before = [turn for turn in turns if turn.sequence is not None and turn.sequence < memory.sequence]
        after = [turn for turn in turns if turn.sequence is not None and turn.sequence > memory.sequence]
        for turn in (max(before, key=_sequence, default=None), min(after, key=_sequence, default=None)):
            if turn is not None and turn.memory_id not in have:
                near[turn.memory_id] = turn
    return near.values()


def _sequence(memory: Memory) -> int:
    return memory.sequence or 0


def _names(target: Target, memory: Memory) -> bool:
    if target.memory_id:
        return memory.memory_id == target.memory_id
    if target.key:
        return (memory.namespace, memory.key) == (target.namespace, target.key)
    return target.coordinate is not None and memory.coordinate == target.coordinate

"""Rows that recall keeps: used for the very tuple that was read, for nothing else, and within their bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memory_server.ports import StoredVectors
from memory_server.stores.postgres.row_cache import KeptRow, RowCache
from soma_contract.filters import EVERYTHING
from soma_contract.memory import Forget, Memory, Target, Update
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import PROFILE, TruthInPostgres, remember, stored

stores = pytest.mark.stores


async def texts(truth: TruthInPostgres, tenant: Tenant, *memories: Memory) -> list[str]:
    ids = [memory.memory_id for memory in memories]
    rows, _ = await truth.recall.pool(tenant, EVERYTHING, ids, terms=[], profile=PROFILE, neighbours=True)
    return sorted(row.memory.text for row in rows)


def forge(truth: TruthInPostgres) -> None:
    """Change what is kept behind the back of the truth: it shows whether what is kept is used."""
    for kept in truth.pools.rows:
        kept.memory = replace(kept.memory, text=f"forged {kept.memory.text}")


@stores
async def test_a_kept_row_is_used_for_the_tuple_it_was_read_from_only(
    truth_in_postgres: TruthInPostgres, tenant: Tenant, stranger: Tenant
) -> None:
    truth = truth_in_postgres
    tea, cake = await stored(
        truth,
        tenant,
        remember("tea", session_id="s", sequence=1),
        remember("cake", session_id="s", sequence=2),
    )
    assert ["cake", "tea"] == await texts(truth, tenant, tea)
    forge(truth)
    assert ["forged cake", "forged tea"] == await texts(truth, tenant, tea)
    assert [] == await texts(truth, stranger, tea, cake)
    await truth.journal.write(
        tenant, [Update(Target(memory_id=tea.memory_id), Memory(importance=0.5), mask=("importance",))]
    )
    assert ["forged cake", "tea"] == await texts(truth, tenant, tea)
    await truth.journal.write(tenant, [Forget(Target(memory_id=cake.memory_id))])
    assert ["tea"] == await texts(truth, tenant, tea)


@stores
async def test_nothing_is_kept_over_a_new_connection(truth_in_postgres: TruthInPostgres, tenant: Tenant) -> None:
    truth = truth_in_postgres
    (tea,) = await stored(truth, tenant, remember("tea"))
    await texts(truth, tenant, tea)
    forge(truth)
    await truth.pools.interactive.pool.expire_connections()
    assert ["tea"] == await texts(truth, tenant, tea)


def kept(number: int) -> tuple[tuple[str, str, str], KeptRow]:
    memory = Memory(memory_id=str(number), namespace="n", session_id="s", sequence=number, text="x" * 100)
    none = np.zeros((0, 4), np.int8)
    vectors = StoredVectors(np.zeros(100, np.float32), none, none, np.zeros(0, np.int32))
    row = KeptRow(1, memory, 1, np.zeros(5, np.int64), np.zeros(5, np.int32), 1, vectors)
    return ("acme", "p", str(number)), row


def test_the_cache_keeps_within_its_bytes_and_lets_the_longest_unused_go() -> None:
    size = kept(0)[1].size
    cache = RowCache(capacity_bytes=20 * size)
    for number in range(200):
        cache.keep(*kept(number))
        assert cache.get(("acme", "p", "0")) is not None
        assert 22 * size >= sum(row.size for row in cache)
    assert cache.get(("acme", "p", "100")) is None
    assert cache.at(("acme", "p", "n", "s", 199)) is cache.get(("acme", "p", "199"))
    assert cache.at(("acme", "p", "n", "s", 100)) is None
    cache.clear()
    assert [] == list(cache)
    assert cache.at(("acme", "p", "n", "s", 199)) is None

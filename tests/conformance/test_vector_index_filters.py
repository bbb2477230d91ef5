"""The filter compiler against the filter's meaning: random filters over random memories, on the real engine."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_server.ports import Collection, IndexRow, VectorIndex
from memory_server.stores.inmemory.index import without_payload
from soma_contract.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    KeyPrefix,
    LabelField,
    LabelIn,
    NoneOf,
    NumberField,
    NumberRange,
    PayloadCompare,
    TagsAll,
    TagsAny,
    TimeField,
    TimeRange,
    matches,
)
from soma_contract.memory import Kind, Memory
from tests.conformance.index_stores import ACME, GLOBEX, direction, index, index_address, memory_id, opened

__all__ = ["index", "index_address"]

pytestmark = pytest.mark.slow

# Whatever could end a literal, start an escape or a template, or be a wildcard somewhere.
NASTY = [
    "",
    " ",
    '"',
    "'",
    "\\",
    '\\"',
    "\\\\",
    "\n",
    "\r\n",
    "\t",
    "\x01",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\uffff",
    "%",
    "%22",
    "%%",
    "_",
    "a%",
    "a_b",
    "{tenant}",
    "${x}",
    "$meta",
    'x" or pk > "',
    '"] or tenant != "',
    "x' or '1'=='1",
    "/* */",
    "-- ",
    "\\n",
    "\\x41",
    "\\u0041",
    "null",
    "true",
    "a",
    "A",
    "aa",
    "ab",
    "b",
    "plan",
    "plan/1",
    "plan/12",
    "plan0",
    "é",
    "e\u0301",
    "ß",
    "日本",
    "日本語",
    "\U0001f600",
    "\U0010ffff",
    "\ud7ff",
    "\ue000",
    "x" * 256,
    "é" * 128,
    "\n" * 256,
]
MOMENTS = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1970, 1, 1, microsecond=1, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2199, 12, 31, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
]
NUMBERS = [0.0, -0.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 1.0, -1.0, 1e-7, 1e22, 5e-324, 1.7976931348623157e308, -2.5, 1 / 3]

labels = st.sampled_from(NASTY)
moments = st.sampled_from(MOMENTS) | st.builds(
    lambda micros: MOMENTS[3] + timedelta(microseconds=micros), st.integers(-3, 3)
)
bounds = st.sampled_from([*NUMBERS, float("inf"), float("-inf"), float("nan")]) | st.floats()


def tuples(values: st.SearchStrategy[str], most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(values, max_size=most).map(tuple)


leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(
        LabelIn,
        st.sampled_from([f for f in LabelField if f not in (LabelField.MEMORY_ID, LabelField.KIND)]),
        tuples(labels, 4),
    ),
    st.builds(LabelIn, st.just(LabelField.KIND), tuples(st.sampled_from([*Kind, *NASTY[:8]]), 3)),
    st.builds(
        LabelIn,
        st.just(LabelField.MEMORY_ID),
        tuples(st.integers(0, 70).map(memory_id) | labels, 4),
    ),
    st.builds(KeyPrefix, labels | st.text(max_size=2)),
    st.builds(TagsAny, tuples(labels, 3)),
    st.builds(TagsAll, tuples(labels, 3)),
    st.builds(TimeRange, st.sampled_from(TimeField), st.none() | moments, st.none() | moments),
    st.builds(NumberRange, st.sampled_from(NumberField), st.none() | bounds, st.none() | bounds),
    st.just(PayloadCompare(("a",), Comparison.EQ, (1,))),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda below: st.builds(
        lambda node, operands: node(tuple(operands)),
        st.sampled_from([AllOf, AnyOf, NoneOf]),
        st.lists(below, max_size=4),
    ),
    max_leaves=8,
)


def memories(count: int) -> list[Memory]:
    """Memories over the same values as the filters, the same in every run."""
    chance = random.Random(20_240_501)

    def label() -> str:
        return chance.choice(NASTY)

    def moment() -> datetime | None:
        return (
            chance.choice([None, *MOMENTS])
            if chance.random() < 0.8
            else MOMENTS[3] + timedelta(microseconds=chance.randint(-3, 3))
        )

    def number() -> float | None:
        return chance.choice([None, *NUMBERS])

    return [
        Memory(
            memory_id=memory_id(n),
            namespace=label(),
            key=NASTY[n % len(NASTY)],
            kind=chance.choice(list(Kind)),
            schema_type=label(),
            persona_id=label(),
            actor=label(),
            session_id=label(),
            tags=tuple({label() for _ in range(chance.randint(0, 4))}),
            importance=number(),
            relevance=number(),
            occurred_at=moment(),
            created_at=moment(),
            updated_at=moment(),
            payload_json='{"a": 2}',
        )
        for n in range(count)
    ]


@dataclass(frozen=True)
class Filled:
    index: VectorIndex
    collection: Collection
    memories: list[Memory]


@pytest_asyncio.fixture(loop_scope="session")
async def filled(index: VectorIndex, collection_prefix: str) -> AsyncIterator[Filled]:
    """Seventy memories of one tenant, and the same of another that must never show."""
    collection = await opened(index, f"{collection_prefix}filters")
    held = memories(70)
    vector = direction(0.0)
    rows = [IndexRow(tenant, memory, n, vector, "apple") for tenant, n in ((ACME, 1), (GLOBEX, 2)) for memory in held]
    await index.upsert(collection, rows)
    yield Filled(index, collection, held)
    await index.drop(collection.name)


async def found_ids(filled: Filled, filter: Filter) -> set[str]:
    found = await filled.index.search(
        ACME, filled.collection, filter, dense=direction(0.0), keyword_text=None, limit=1_000, deadline_s=10.0
    )
    assert found.dense is not None
    ids = {hit.memory_id for hit in found.dense}
    assert len(ids) == len(found.dense), "a row of another tenant"
    return ids


@given(filter=filters)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_what_passes_is_what_matches(filled: Filled, filter: Filter) -> None:
    relaxed = without_payload(filter)
    expected = {memory.memory_id for memory in filled.memories if matches(relaxed, memory)}
    actual = await found_ids(filled, filter)
    assert expected == actual


@given(filter=filters)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_nothing_that_matches_is_kept_out(filled: Filled, filter: Filter) -> None:
    wanted = {memory.memory_id for memory in filled.memories if matches(filter, memory)}
    assert wanted <= await found_ids(filled, filter)


@pytest.mark.parametrize("value", NASTY, ids=ascii)
async def test_every_label_is_found_by_itself_and_by_its_prefixes(filled: Filled, value: str) -> None:
    equal = {memory.memory_id for memory in filled.memories if memory.key == value}
    assert equal == await found_ids(filled, LabelIn(LabelField.KEY, (value,)))
    for end in range(1, min(len(value), 3) + 1):
        prefixed = {memory.memory_id for memory in filled.memories if memory.key.startswith(value[:end])}
        assert prefixed == await found_ids(filled, KeyPrefix(value[:end]))


def test_the_memories_exercise_the_filters() -> None:
    held = memories(70)
    assert {memory.key for memory in held} == set(NASTY)
    assert any(memory.importance is None for memory in held)
    assert np.isfinite([memory.importance for memory in held if memory.importance is not None]).all()

"""A filter means on every Journal what its definition says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_server.ports import Listing
from soma_contract.filters import (
    EVERYTHING,
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
from soma_contract.tenant import Tenant, admin_tenant
from tests.conformance.truth_stores import (
    Truth,
    remember,
    stored,
    truth,
    truth_database,
    truth_in_postgres,
    truth_name,
)

__all__ = ["truth", "truth_database", "truth_in_postgres", "truth_name"]

START = datetime(2025, 1, 1, tzinfo=UTC)
LABELS = ("", "a", "A", "b", "ä", "a'b", 'a"b', "%", "_", "\\", "z", "😀")
TAGS = ("a", "b", 'c"', "{d}", "")
PAYLOADS = (
    "",
    "{}",
    '{"n": 0}',
    '{"n": -0.0}',
    '{"n": 0.1}',
    '{"n": 0.10}',
    '{"n": 1e0}',
    '{"n": 1}',
    '{"n": 9007199254740993}',
    '{"n": 123456789012345678901234567890}',
    '{"n": 1e308}',
    '{"n": -1e-308}',
    '{"n": "1"}',
    '{"n": true}',
    '{"n": false}',
    '{"n": null}',
    '{"n": [1, 2]}',
    '{"n": {"n": 2, "": 3}}',
    '{"n": "a"}',
    '{"n": "B"}',
    '{"n": "ä"}',
    '{"n": "😀"}',
    '{"n": "\\uffff"}',
    '{"n": ""}',
    '{"a b": {"0": "x"}, "": 1}',
)
PATHS = (("n",), ("n", "n"), ("n", "0"), ("n", ""), ("a b", "0"), ("",), ("none",))
SCALARS = st.one_of(
    st.sampled_from(["", "1", "a", "A", "B", "ä", "x", "😀", "\uffff", "true"]),
    st.sampled_from([0, 1, 2, -1, 9007199254740992, 9007199254740993, 10**29, 123456789012345678901234567890]),
    st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, 1e308, -1e-308, 1e-308, 9007199254740992.0]),
    st.booleans(),
)


def _moments() -> st.SearchStrategy[datetime | None]:
    return st.none() | st.integers(-1, 6).map(lambda number: START + timedelta(microseconds=number))


LEAVES: st.SearchStrategy[Filter] = st.one_of(
    st.builds(LabelIn, st.sampled_from(LabelField), st.lists(st.sampled_from((*LABELS, "episodic"))).map(tuple)),
    st.builds(KeyPrefix, st.sampled_from(LABELS)),
    st.builds(TagsAny, st.lists(st.sampled_from((*TAGS, "none"))).map(tuple)),
    st.builds(TagsAll, st.lists(st.sampled_from((*TAGS, "none"))).map(tuple)),
    st.builds(TimeRange, st.sampled_from(TimeField), _moments(), _moments()),
    st.builds(
        NumberRange,
        st.sampled_from(NumberField),
        st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ),
    st.builds(
        PayloadCompare,
        st.sampled_from(PATHS),
        st.sampled_from([one for one in Comparison if one not in (Comparison.EXISTS, Comparison.IN)]),
        SCALARS.map(lambda value: (value,)),
    ),
    st.builds(PayloadCompare, st.sampled_from(PATHS), st.just(Comparison.EXISTS)),
    st.builds(PayloadCompare, st.sampled_from(PATHS), st.just(Comparison.IN), st.lists(SCALARS, max_size=3).map(tuple)),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        *(st.builds(node, st.lists(inner, max_size=3).map(tuple)) for node in (AllOf, AnyOf, NoneOf))
    ),
    max_leaves=6,
)


def _memories() -> list[Memory]:
    drawn = random.Random(11)
    return [
        Memory(
            namespace=drawn.choice(["default", "a", "b"]),
            key=f"{drawn.choice(LABELS)}{number}" if number % 2 else "",
            kind=drawn.choice(list(Kind)),
            schema_type=drawn.choice(LABELS),
            persona_id=drawn.choice(LABELS),
            text=f"note {number}",
            payload_json=PAYLOADS[number % len(PAYLOADS)],
            tags=tuple(drawn.sample(TAGS, drawn.randrange(len(TAGS)))),
            actor=drawn.choice(LABELS),
            session_id=drawn.choice(LABELS),
            importance=drawn.choice([None, 0.0, 0.1, 0.5, 1.0]),
            relevance=drawn.choice([None, 0.0, 0.1, 1.0]),
            occurred_at=drawn.choice([None, *(START + timedelta(microseconds=step) for step in range(5))]),
        )
        for number in range(120)
    ]


TENANT = admin_tenant("filters", reason="tests")


async def _population(truth: Truth, tenant: Tenant) -> list[Memory]:
    """The memories, written once for each store."""
    page = await truth.journal.list_memories(tenant, Listing(EVERYTHING, 1_000))
    if page.memories:
        return list(page.memories)
    commands = [remember(**{name: getattr(one, name) for name in Memory.__slots__[1:]}) for one in _memories()]
    return await stored(truth, tenant, *commands)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(filter=FILTERS)
async def test_a_filter_finds_exactly_the_memories_it_matches(truth: Truth, filter: Filter) -> None:
    population = await _population(truth, TENANT)
    expected = sorted(memory.memory_id for memory in population if matches(filter, memory))
    assert expected == await truth.journal.matching_ids(TENANT, filter, 1_000)


@pytest.mark.parametrize("text", ["'; DROP TABLE memory_items; --", "$1", "{filter}", "\\'", "'||'"])
async def test_a_filters_values_are_never_read_as_code(truth: Truth, text: str) -> None:
    population = await _population(truth, TENANT)
    for filter in (
        LabelIn(LabelField.ACTOR, (text,)),
        KeyPrefix(text),
        TagsAny((text,)),
        PayloadCompare((text,), Comparison.EQ, (text,)),
    ):
        assert [] == await truth.journal.matching_ids(TENANT, filter, 1_000)
    assert len(population) == len(await truth.journal.matching_ids(TENANT, AllOf(), 1_000))

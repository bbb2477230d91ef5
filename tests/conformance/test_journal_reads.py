"""Lists, history and earlier versions: what every Journal must read alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memory_server.ports import LISTING_ORDERS, Listing
from soma_contract.errors import FieldViolationError, PageTokenInvalidError
from soma_contract.filters import EVERYTHING, AnyOf, KeyPrefix, LabelField, LabelIn, TagsAny
from soma_contract.memory import Forget, Memory, Target, Update, View
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import (
    PROFILE,
    Truth,
    remember,
    stored,
    stranger,
    tenant,
    truth,
    truth_database,
    truth_in_postgres,
    truth_name,
    vectors,
)

__all__ = ["stranger", "tenant", "truth", "truth_database", "truth_in_postgres", "truth_name"]

DAY = datetime(2025, 5, 1, tzinfo=UTC)


async def listed(truth: Truth, tenant: Tenant, listing: Listing) -> list[Memory]:
    """All pages of a list."""
    memories: list[Memory] = []
    while True:
        page = await truth.journal.list_memories(tenant, listing)
        assert len(page.memories) <= listing.limit
        memories += page.memories
        if not page.next_after:
            return memories
        listing = replace(listing, after=page.next_after)


def _rank(order: str, memory: Memory) -> tuple[bool, object, str]:
    value = getattr(memory, order)
    return value is not None, 0 if value is None else value, memory.memory_id


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", LISTING_ORDERS)
async def test_pages_hold_every_memory_once_in_order(
    truth: Truth, tenant: Tenant, order: str, descending: bool
) -> None:
    commands = [
        remember(
            f"note {number}",
            key=f"k{number % 7}-{number}" if number % 3 else "",
            importance=None if number % 4 == 0 else number % 5 / 4,
            relevance=0.5 if number % 2 else None,
            occurred_at=None if number % 5 == 0 else DAY + timedelta(microseconds=number % 6),
        )
        for number in range(23)
    ]
    memories = await stored(truth, tenant, *commands)
    expected = sorted(memories, key=lambda memory: _rank(order, memory), reverse=descending)
    for limit in (1, 7, 23, 50):
        assert expected == await listed(truth, tenant, Listing(EVERYTHING, limit, order=order, descending=descending))


async def test_a_list_shows_what_matches_and_lives(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    red, _, blue, gone, _ = await stored(
        truth,
        tenant,
        remember("a", key="a", tags=("red",)),
        remember("b", key="b", tags=("green",)),
        remember("c", key="c", tags=("blue",)),
        remember("d", key="d", tags=("red",)),
        remember("e", key="e", tags=("red",), ttl_s=60.0),
    )
    await stored(truth, stranger, remember("f", key="f", tags=("red",)))
    await truth.journal.write(tenant, [Forget(Target(key=gone.key))])
    await truth.pass_time(61)
    wanted = TagsAny(("red", "blue"))
    got = await truth.journal.list_memories(tenant, Listing(wanted, 10, order="key"))
    assert ["a", "c"] == [memory.text for memory in got.memories]
    assert sorted([red.memory_id, blue.memory_id]) == await truth.journal.matching_ids(tenant, wanted, 10)
    assert sorted([red.memory_id, blue.memory_id])[:1] == await truth.journal.matching_ids(tenant, wanted, 1)


async def test_a_key_prefix_means_its_characters(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, *(remember(key, key=key) for key in ("a_b", "a%b", "aXb", "a_", "A_b", "ä")))
    got = await truth.journal.list_memories(tenant, Listing(KeyPrefix("a_"), 10, order="key"))
    assert ["a_", "a_b"] == [memory.key for memory in got.memories]


async def test_an_unknown_order_names_the_field(truth: Truth, tenant: Tenant) -> None:
    with pytest.raises(FieldViolationError) as refused:
        await truth.journal.list_memories(tenant, Listing(EVERYTHING, 10, order="text; DROP TABLE memory_items"))
    assert "order" == refused.value.violations[0].field


@pytest.mark.parametrize("after", [("x", "y"), ("1e400e", "x"), ("a", "b", "c"), ("",)])
async def test_a_page_end_that_is_none_is_refused(truth: Truth, tenant: Tenant, after: tuple[str, ...]) -> None:
    with pytest.raises(PageTokenInvalidError):
        await truth.journal.list_memories(tenant, Listing(EVERYTHING, 10, order="importance", after=after))


async def test_history_is_read_newest_first_and_in_pieces(truth: Truth, tenant: Tenant) -> None:
    texts = [f"version {number}" for number in range(1, 6)]
    memory = [(await stored(truth, tenant, remember(text, key="k")))[0] for text in texts][-1]
    read = truth.journal.history
    first = await read(tenant, memory.memory_id, before_version=None, limit=2)
    rest = await read(tenant, memory.memory_id, before_version=4, limit=10)
    assert [5, 4] == [version.version for version in first]
    assert ["version 3", "version 2", "version 1"] == [version.text for version in rest]
    assert memory == first[0]


async def test_twenty_versions_are_kept(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("first", key="k"))
    for number in range(24):
        await truth.journal.write(tenant, [Update(Target(key="k"), Memory(importance=number / 100), ("importance",))])
    history = await truth.journal.history(tenant, memory.memory_id, before_version=None, limit=100)
    assert list(range(25, 5, -1)) == [version.version for version in history]


async def test_as_of_reads_the_version_of_a_moment(truth: Truth, tenant: Tenant) -> None:
    versions = [(await stored(truth, tenant, remember(f"version {number}", key="k")))[0] for number in range(4)]
    for version in versions:
        assert [version] == await truth.journal.get(tenant, [Target(key="k")], as_of=version.updated_at)
    assert versions[0].created_at is not None
    before = versions[0].created_at - timedelta(microseconds=1)
    assert [None] == await truth.journal.get(tenant, [Target(key="k")], as_of=before)
    assert [versions[-1]] == await truth.journal.get(tenant, [Target(key="k")], as_of=datetime(2199, 1, 1, tzinfo=UTC))


async def test_the_full_view_brings_the_vector_made_for_the_version(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("tea", key="k"))
    jobs = await truth.queue.claim(limit=10, lease_s=60)
    made = vectors(0.5)
    await truth.queue.put_vectors(PROFILE, [(job, made) for job in jobs])
    (full,) = await truth.journal.get(tenant, [Target(key="k")], view=View.FULL)
    page = await truth.journal.list_memories(tenant, Listing(EVERYTHING, 10, view=View.FULL))
    assert full is not None
    assert full.embedding is not None
    assert made.dense.tolist() == full.embedding.array.tolist()
    assert (full,) == page.memories
    await stored(truth, tenant, remember("coffee", key="k"))
    (changed,) = await truth.journal.get(tenant, [Target(memory_id=memory.memory_id)], view=View.FULL)
    assert changed is not None
    assert changed.embedding is None


async def test_a_filter_without_conditions_that_match_lists_nothing(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea"))
    for nothing in (AnyOf(), LabelIn(LabelField.MEMORY_ID, ("no id", "")), LabelIn(LabelField.ACTOR, ())):
        assert [] == await truth.journal.matching_ids(tenant, nothing, 10)

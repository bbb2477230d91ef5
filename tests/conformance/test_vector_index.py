"""What every VectorIndex must do: the in-memory twin and Milvus pass the same tests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from memory_server.ports import Collection, CollectionLostError, IndexSearch, RowsRefusedError, VectorIndex
from memory_server.stores.inmemory.index import InMemoryIndex
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
)
from soma_contract.memory import Kind, Memory
from soma_contract.tenant import Tenant
from tests.conformance.index_stores import (
    ACME,
    DIMENSION,
    GLOBEX,
    collection,
    direction,
    index,
    index_address,
    memory_id,
    opened,
    row,
)

__all__ = ["collection", "index", "index_address"]


async def search(
    index: VectorIndex,
    collection: Collection,
    filter: Filter = EVERYTHING,
    *,
    tenant: Tenant = ACME,
    angle: float | None = 0.0,
    text: str | None = None,
    ids: list[str] | None = None,
    limit: int = 10,
) -> IndexSearch:
    return await index.search(
        tenant,
        collection,
        filter,
        dense=None if angle is None else direction(angle),
        keyword_text=text,
        ids=ids,
        limit=limit,
        deadline_s=10.0,
    )


def numbers(hits: object) -> list[int]:
    assert isinstance(hits, tuple)
    return [int(hit.memory_id.replace("-", ""), 16) & 0xFFFFFFFF for hit in hits]


TEXTS = [
    "don't can't won't I'll it’s “quoted”",
    "user_name snake_case __init__",
    "foo-bar baz/qux a.b.c john@example.com",
    "3.14 1,000 v2.0 10:30 2nd",
    "running runs ran runner hello hello",
    "naïve café résumé Übung straße",
    "日本語のテキスト 한국어 ไทย Привет мир",
    "emoji \U0001f600 smile ﬁne zero\u200bwidth a\u0301b",
    f"{'x' * 39} {'y' * 40} {'z' * 41} {'é' * 20} {'é' * 21}",
    "the of and when did she",
    "C++ C# a1b2c3 COVID-19 U.S.A.",
]

# --- collections ---


async def test_a_new_collection_is_reported_as_lost_once(index: VectorIndex, collection_prefix: str) -> None:
    first = Collection(f"{collection_prefix}new", 1, "p", DIMENSION)
    assert await index.ensure(first) is True
    second = replace(first, epoch=2)
    assert await index.ensure(second) is False
    assert await index.ensure(second) is False
    await index.drop(first.name)


async def test_a_crash_between_creation_and_the_new_epoch_hides_nothing(
    index: VectorIndex, collection_prefix: str
) -> None:
    first = Collection(f"{collection_prefix}crash", 1, "p", DIMENSION)
    assert await index.ensure(first) is True
    # The process died before it could declare the epoch: whoever comes next hears the same.
    assert await index.ensure(first) is True
    assert await index.ensure(replace(first, epoch=2)) is False
    await index.drop(first.name)


async def test_an_epoch_that_was_replaced_is_lost_to_those_who_still_use_it(
    index: VectorIndex, collection: Collection
) -> None:
    await index.upsert(collection, [row(1, "an apple")])
    newer = replace(collection, epoch=collection.epoch + 1)
    while await index.ensure(newer):
        newer = replace(newer, epoch=newer.epoch + 1)
    with pytest.raises(CollectionLostError):
        await search(index, collection)
    assert (await search(index, newer)).dense == ()


async def test_a_collection_that_is_gone_is_lost_to_every_call(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, "an apple")])
    await index.drop(collection.name)
    with pytest.raises(CollectionLostError):
        await search(index, collection, text="apple")
    with pytest.raises(CollectionLostError):
        await index.upsert(collection, [row(1)])
    with pytest.raises(CollectionLostError):
        await index.remove(collection, [(ACME, memory_id(1))])
    with pytest.raises(CollectionLostError):
        await index.versions(collection, after_key="", limit=10)
    assert await index.ensure(collection) is True


async def test_another_dimension_is_another_collection(index: VectorIndex, collection: Collection) -> None:
    wider = replace(collection, dimension=2 * DIMENSION)
    assert await index.ensure(wider) is True


async def test_dropping_one_collection_leaves_its_namesakes_prefix_alone(
    index: VectorIndex, collection: Collection
) -> None:
    longer = await opened(index, f"{collection.name}_e1")
    await index.drop(collection.name)
    assert await index.ensure(longer) is False
    await index.drop(longer.name)


# --- rows ---


async def test_a_written_row_is_found_by_both_legs(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, "the apple fell", version=4), row(2, "a pear", angle=1.5)])
    found = await search(index, collection, text="apples falling", limit=1)
    assert found.dense is not None
    assert found.keyword is not None
    assert [hit.memory_id for hit in found.dense] == [memory_id(1)]
    assert [hit.memory_id for hit in found.keyword] == [memory_id(1)]
    assert [version for *_, version in await index.versions(collection, after_key="", limit=10)] == [4, 1]
    assert found.dense[0].score == pytest.approx(1.0, abs=1e-6)
    assert found.keyword[0].score > 0
    assert dict(found.failures) == {}


async def test_writing_a_row_again_replaces_it(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, "apple", version=1)])
    await index.upsert(collection, [row(1, "pear", version=2, angle=1.0)])
    assert await index.versions(collection, after_key="", limit=10) == [("acme", memory_id(1), 2)]
    assert (await search(index, collection, angle=None, text="apple")).keyword == ()
    assert numbers((await search(index, collection, angle=None, text="pear")).keyword) == [1]


async def test_of_one_key_twice_in_a_batch_the_highest_version_counts(
    index: VectorIndex, collection: Collection
) -> None:
    await index.upsert(collection, [row(1, "new", version=3), row(1, "old", version=2)])
    assert await index.versions(collection, after_key="", limit=10) == [("acme", memory_id(1), 3)]


async def test_removed_rows_are_gone_and_absent_ones_are_fine(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, "apple"), row(2, "apple"), row(1, "apple", tenant=GLOBEX)])
    await index.remove(collection, [(ACME, memory_id(1)), (ACME, memory_id(77))])
    assert numbers((await search(index, collection, text="apple")).keyword) == [2]
    assert numbers((await search(index, collection, tenant=GLOBEX)).dense) == [1]


async def test_writing_and_removing_nothing_is_fine(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [])
    await index.remove(collection, [])
    assert await index.versions(collection, after_key="", limit=10) == []


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (np.full(DIMENSION, np.nan, np.float32), "finite"),
        (np.full(DIMENSION, np.inf, np.float32), "finite"),
        (np.zeros(DIMENSION, np.float32), "norm"),
        (np.ones(DIMENSION, np.float32), "norm"),
        (direction(0, DIMENSION + 1), "shape"),
    ],
)
async def test_a_bad_vector_is_named_and_nothing_is_written(
    index: VectorIndex, collection: Collection, vector: np.ndarray, reason: str
) -> None:
    with pytest.raises(RowsRefusedError) as refused:
        await index.upsert(collection, [row(1), replace(row(2), dense=vector)])
    assert list(refused.value.reasons) == [("acme", memory_id(2))]
    assert reason in refused.value.reasons["acme", memory_id(2)]
    assert await index.versions(collection, after_key="", limit=10) == []


async def test_a_text_longer_than_the_column_is_held_by_its_beginning(
    index: VectorIndex, collection: Collection
) -> None:
    await index.upsert(collection, [row(1, "apple " + "é" * 70_000 + " pear")])
    assert numbers((await search(index, collection, angle=None, text="apple")).keyword) == [1]


async def test_versions_come_in_key_order_page_by_page(index: VectorIndex, collection: Collection) -> None:
    rows = [row(n, version=n, tenant=tenant) for n in range(1, 31) for tenant in (ACME, GLOBEX)]
    await index.upsert(collection, rows)
    seen: list[tuple[str, str, int]] = []
    after = ""
    while page := await index.versions(collection, after_key=after, limit=7):
        assert len(page) <= 7
        seen += page
        after = f"{page[-1][0]}|{page[-1][1]}"
    expected = [("acme", memory_id(n), n) for n in range(1, 31)]
    expected += [("globex", memory_id(n), n) for n in range(1, 31)]
    assert expected == seen


async def test_rows_of_many_writers_and_searchers_at_once_are_all_there(
    index: VectorIndex, collection: Collection
) -> None:
    async def write(writer: int) -> None:
        for turn in range(3):
            numbers_ = range(writer * 100 + turn * 10, writer * 100 + turn * 10 + 10)
            await index.upsert(collection, [row(n, f"word{writer}") for n in numbers_])

    async def look() -> None:
        for _ in range(10):
            found = await search(index, collection, text="word1", limit=5)
            assert dict(found.failures) == {}

    async with asyncio.TaskGroup() as tasks:
        for writer in range(4):
            tasks.create_task(write(writer))
        tasks.create_task(look())
        tasks.create_task(look())
    assert len(await index.versions(collection, after_key="", limit=1_000)) == 120


# --- search ---


async def test_hits_come_best_first_and_no_more_than_asked(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(n, "apple " * n, angle=n / 10) for n in range(1, 9)])
    found = await search(index, collection, text="apple", limit=3)
    assert numbers(found.dense) == [1, 2, 3]
    assert found.keyword is not None
    scores = [hit.score for hit in found.keyword]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    everything = await search(index, collection, text="apple", limit=16_384)
    assert len(everything.dense or ()) == 8
    assert len(everything.keyword or ()) == 8


async def test_equal_scores_are_ordered_by_id(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(n, "apple") for n in (5, 3, 9, 1)])
    found = await search(index, collection, text="apple")
    assert numbers(found.dense) == [1, 3, 5, 9]
    assert numbers(found.keyword) == [1, 3, 5, 9]


async def test_a_tenant_finds_only_its_own_rows_even_of_equal_ids(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(n, "apple", tenant=ACME) for n in range(5)])
    await index.upsert(collection, [row(n, "apple", tenant=GLOBEX, version=9) for n in range(3, 8)])
    found = await search(index, collection, tenant=GLOBEX, text="apple")
    for hits in (found.dense, found.keyword):
        assert numbers(hits) == [3, 4, 5, 6, 7]


async def test_a_leg_that_is_not_asked_for_is_none(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, "apple")])
    assert (await search(index, collection)).keyword is None
    assert (await search(index, collection, angle=None, text="apple")).dense is None


async def test_a_query_of_nothing_but_stop_words_finds_nothing(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, "when did she go there")])
    assert (await search(index, collection, angle=None, text="when did she")).keyword == ()
    assert (await search(index, collection, angle=None, text="")).keyword == ()


async def test_keyword_scores_are_bm25_over_the_whole_collection(index: VectorIndex, collection: Collection) -> None:
    twin = InMemoryIndex()
    twins = await opened(twin, "twin")
    rows = [row(n, text, tenant=GLOBEX if n % 3 == 0 else ACME) for n, text in enumerate(TEXTS)]
    await index.upsert(collection, rows)
    await twin.upsert(twins, rows)
    for query in {*TEXTS, *(word for text in TEXTS for word in text.split())}:
        expected = (await search(twin, twins, angle=None, text=query, limit=100)).keyword or ()
        actual = (await search(index, collection, angle=None, text=query, limit=100)).keyword or ()
        scores = {hit.memory_id: hit.score for hit in actual}
        assert {hit.memory_id: pytest.approx(hit.score, rel=1e-4) for hit in expected} == scores


async def test_a_search_can_be_restricted_to_ids(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(n, "apple", angle=n / 10) for n in range(1, 20)])
    found = await search(index, collection, text="apple", ids=[memory_id(n) for n in (3, 17, 99)])
    assert numbers(found.dense) == [3, 17]
    assert sorted(numbers(found.keyword)) == [3, 17]
    assert (await search(index, collection, ids=[])).dense == ()


async def test_a_restriction_to_ten_thousand_ids_works(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(n, "apple") for n in (1, 2, 20_000)])
    found = await search(index, collection, text="apple", ids=[memory_id(n) for n in range(2, 10_002)])
    assert numbers(found.dense) == [2]
    assert numbers(found.keyword) == [2]


async def test_an_id_that_is_none_is_refused_before_it_reaches_the_engine(
    index: VectorIndex, collection: Collection
) -> None:
    with pytest.raises(ValueError, match="memory id"):
        await search(index, collection, ids=['x" or pk > "'])


async def test_exactly_as_many_hits_as_match_at_any_selectivity(index: VectorIndex, collection: Collection) -> None:
    rows = [row(n, "apple", memory=Memory(actor="rare" if n % 50 == 0 else "common")) for n in range(200)]
    await index.upsert(collection, rows)
    rare = LabelIn(LabelField.ACTOR, ("rare",))
    found = await search(index, collection, rare, text="apple")
    assert numbers(found.dense) == [0, 50, 100, 150]
    assert numbers(found.keyword) == [0, 50, 100, 150]


# --- filters ---

FULL = Memory(
    namespace="work",
    key="plan/1",
    kind=Kind.SEMANTIC,
    schema_type="note",
    persona_id="butler",
    tags=("red", "round"),
    actor="Ana",
    session_id="s-1",
    importance=0.5,
    relevance=2.0,
    occurred_at=datetime(2024, 5, 1, 12, tzinfo=UTC),
    created_at=datetime(2024, 5, 2, tzinfo=UTC),
    updated_at=datetime(2024, 5, 3, microsecond=1, tzinfo=UTC),
)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
LATER = datetime(2024, 5, 1, 12, microsecond=1, tzinfo=UTC)

MATCHING: list[Filter] = [
    EVERYTHING,
    LabelIn(LabelField.MEMORY_ID, (memory_id(1), "no id at all")),
    LabelIn(LabelField.NAMESPACE, ("work", "home")),
    LabelIn(LabelField.KEY, ("plan/1",)),
    LabelIn(LabelField.KIND, ("semantic",)),
    LabelIn(LabelField.SCHEMA_TYPE, ("note",)),
    LabelIn(LabelField.PERSONA, ("butler",)),
    LabelIn(LabelField.ACTOR, ("Ana",)),
    LabelIn(LabelField.SESSION, ("s-1",)),
    KeyPrefix("plan/"),
    TagsAny(("blue", "red")),
    TagsAll(("round", "red")),
    TimeRange(TimeField.OCCURRED, NOON, LATER),
    TimeRange(TimeField.CREATED, start=NOON),
    TimeRange(TimeField.UPDATED, start=datetime(2024, 5, 3, microsecond=1, tzinfo=UTC)),
    NumberRange(NumberField.IMPORTANCE, 0.5, 0.5),
    NumberRange(NumberField.RELEVANCE, low=-1e300),
    NoneOf((LabelIn(LabelField.ACTOR, ("Bob",)), TagsAny(("blue", "green")))),
    AnyOf((LabelIn(LabelField.ACTOR, ("Bob",)), NoneOf((TagsAll(("red", "blue")),)))),
]
OTHERS: list[Filter] = [
    AnyOf(),
    NoneOf((EVERYTHING,)),
    LabelIn(LabelField.ACTOR, ()),
    LabelIn(LabelField.ACTOR, ("ana",)),
    LabelIn(LabelField.ACTOR, ("x" * 2_000,)),
    LabelIn(LabelField.MEMORY_ID, (memory_id(2),)),
    LabelIn(LabelField.KIND, ("SEMANTIC",)),
    KeyPrefix("plan/2"),
    TagsAny(()),
    TagsAny(("re", "blue")),
    TagsAll(("red", "blue")),
    TimeRange(TimeField.OCCURRED, LATER),
    TimeRange(TimeField.OCCURRED, end=NOON),
    NumberRange(NumberField.IMPORTANCE, low=0.5000001),
    NumberRange(NumberField.IMPORTANCE, high=float("-inf")),
    NumberRange(NumberField.IMPORTANCE, low=float("nan")),
    NoneOf((TagsAny(("red",)),)),
    NoneOf((KeyPrefix("plan"),)),
]


@pytest.mark.parametrize("matching", MATCHING, ids=repr)
async def test_a_filter_lets_through_what_matches(index: VectorIndex, collection: Collection, matching: Filter) -> None:
    await index.upsert(collection, [row(1, "apple", memory=FULL)])
    found = await search(index, collection, matching, text="apple")
    assert numbers(found.dense) == [1]
    assert numbers(found.keyword) == [1]
    assert found.exact
    inverse = await search(index, collection, NoneOf((matching,)), text="apple")
    assert inverse.dense == ()
    assert inverse.keyword == ()


@pytest.mark.parametrize("other", OTHERS, ids=repr)
async def test_a_filter_keeps_out_what_does_not_match(
    index: VectorIndex, collection: Collection, other: Filter
) -> None:
    await index.upsert(collection, [row(1, "apple", memory=FULL)])
    assert (await search(index, collection, other)).dense == ()
    assert numbers((await search(index, collection, NoneOf((other,)))).dense) == [1]


async def test_a_memory_without_a_value_never_matches_a_range_over_it(
    index: VectorIndex, collection: Collection
) -> None:
    await index.upsert(collection, [row(1)])
    for missing in (
        TimeRange(TimeField.OCCURRED),
        TimeRange(TimeField.OCCURRED, end=LATER),
        NumberRange(NumberField.IMPORTANCE),
        NumberRange(NumberField.IMPORTANCE, high=1.0),
        KeyPrefix(""),
    ):
        assert (await search(index, collection, missing)).dense == ()
        assert numbers((await search(index, collection, NoneOf((missing,)))).dense) == [1]


async def test_payload_conditions_are_left_to_the_truth(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, memory=FULL)])
    payload = PayloadCompare(("a",), Comparison.EQ, (1,))
    for undecided in (payload, NoneOf((payload,)), AllOf((payload, LabelIn(LabelField.ACTOR, ("Ana",))))):
        found = await search(index, collection, undecided)
        assert numbers(found.dense) == [1]
        assert not found.exact


async def test_the_largest_filter_of_the_contract_is_understood(index: VectorIndex, collection: Collection) -> None:
    await index.upsert(collection, [row(1, memory=FULL)])
    deep: Filter = LabelIn(LabelField.ACTOR, ("Ana",))
    for level in range(15):
        wide = tuple(LabelIn(LabelField.ACTOR, (f"{level}-{n}",)) for n in range(15))
        deep = AnyOf((*wide, deep)) if level % 2 else NoneOf((*wide, NoneOf((deep,))))
    assert numbers((await search(index, collection, deep)).dense) == [1]
    long = LabelIn(LabelField.KEY, (*(f"{n:0255}" for n in range(499)), "plan/1"))
    assert numbers((await search(index, collection, long)).dense) == [1]


async def test_the_probe_answers(index: VectorIndex) -> None:
    await index.probe()

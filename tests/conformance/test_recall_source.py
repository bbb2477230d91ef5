"""What every RecallSource must do: the in-memory twin and Postgres pass the same tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from memory_server.domain.quantile_sketch import QuantileSketch
from memory_server.ports import IndexJob, Overlay
from soma_contract.filters import EVERYTHING, AllOf, Filter, LabelField, LabelIn, TagsAny, with_default_namespace
from soma_contract.memory import Forget, Memory, Target, Update
from soma_contract.tenant import Tenant
from soma_contract.text.analysis import analyzer
from tests.conformance.truth_stores import (
    DIMENSION,
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


def terms_of(text: str) -> list[str]:
    return analyzer().terms(text)


async def index_all(truth: Truth, tenant: Tenant, *, embed: bool = True) -> None:
    """Do what the indexer does, with an index that takes everything."""
    collection = await truth.queue.active_collection(tenant, PROFILE, DIMENSION)
    while jobs := await truth.queue.claim(limit=500, lease_s=60):
        if embed:
            await truth.queue.put_vectors(PROFILE, [(job, vectors()) for job in jobs if job.memory is not None])
        await truth.queue.settle(jobs, collection)


async def overlay(
    truth: Truth, tenant: Tenant, text: str = "", filter: Filter = EVERYTHING, epoch: int | None = None, **limits: int
) -> Overlay:
    if epoch is None:
        epoch = (await truth.queue.active_collection(tenant, PROFILE, DIMENSION)).epoch
    return await truth.recall.overlay(tenant, filter, terms=terms_of(text), epoch=epoch, profile=PROFILE, **limits)


async def search(
    truth: Truth, tenant: Tenant, text: str, filter: Filter = EVERYTHING, limit: int = 10
) -> list[tuple[str, float]]:
    return await truth.recall.keyword_search(tenant, filter, terms=terms_of(text), limit=limit)


# --- the overlay


async def test_a_write_is_in_the_overlay_at_once(truth: Truth, tenant: Tenant) -> None:
    tea, cake = await stored(truth, tenant, remember("green tea"), remember("apple cake"))
    found = await overlay(truth, tenant, "tea")
    assert (2, (tea.memory_id,), False) == (found.pending_rows, found.keyword_ids, found.truncated)
    assert {tea.memory_id: tea, cake.memory_id: cake} == {memory.memory_id: memory for memory in found.unembedded}
    assert ((), (0, 0)) == (found.vector_ids, found.vectors.shape)


async def test_the_overlay_is_there_before_any_collection(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("green tea"))
    await truth.pass_time(60)
    found = await overlay(truth, tenant, "tea", epoch=0)
    assert (1, 1) == (found.pending_rows, len(found.keyword_ids))


async def test_embedded_rows_are_in_the_overlay_with_their_vectors(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, *(remember(f"note {number}") for number in range(3)))
    jobs = await truth.queue.claim(limit=10, lease_s=60)
    made = {job.memory_id: vectors(angle) for angle, job in enumerate(jobs)}
    await truth.queue.put_vectors(PROFILE, [(job, made[job.memory_id]) for job in jobs])
    found = await overlay(truth, tenant)
    assert (3, ()) == (found.pending_rows, found.unembedded)
    got = {memory_id: row.tolist() for memory_id, row in zip(found.vector_ids, found.vectors, strict=True)}
    assert {memory_id: one.dense.tolist() for memory_id, one in made.items()} == got


async def test_a_row_just_indexed_stays_in_the_overlay_for_ten_seconds(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("green tea"))
    await index_all(truth, tenant)
    recent = await overlay(truth, tenant, "tea")
    assert (0, (memory.memory_id,), (memory.memory_id,)) == (
        recent.pending_rows,
        recent.keyword_ids,
        recent.vector_ids,
    )
    await truth.pass_time(11)
    later = await overlay(truth, tenant, "tea")
    assert (0, (), ()) == (later.pending_rows, later.keyword_ids, later.vector_ids)


async def test_all_rows_of_a_lost_collection_are_in_the_overlay(truth: Truth, tenant: Tenant) -> None:
    memories = await stored(truth, tenant, *(remember(f"tea {number}") for number in range(5)))
    await index_all(truth, tenant)
    await truth.pass_time(60)
    old = await truth.queue.active_collection(tenant, PROFILE, DIMENSION)
    await truth.queue.new_epoch(old)
    for epoch in (None, old.epoch):
        found = await overlay(truth, tenant, "tea", epoch=epoch)
        assert 5 == found.pending_rows
        assert {memory.memory_id for memory in memories} == set(found.keyword_ids) == set(found.vector_ids)


async def test_the_overlay_keeps_to_the_filter_and_to_what_lives(
    truth: Truth, tenant: Tenant, stranger: Tenant
) -> None:
    red, _, gone, _ = await stored(
        truth,
        tenant,
        remember("red tea", tags=("red",)),
        remember("blue tea", tags=("blue",)),
        remember("old red tea", tags=("red",)),
        remember("short red tea", tags=("red",), ttl_s=60.0),
    )
    await stored(truth, stranger, remember("their red tea", tags=("red",)))
    await truth.journal.write(tenant, [Forget(Target(memory_id=gone.memory_id))])
    await truth.pass_time(61)
    found = await overlay(truth, tenant, "tea", TagsAny(("red",)))
    assert (1, (red.memory_id,)) == (found.pending_rows, found.keyword_ids)
    assert [red.memory_id] == [memory.memory_id for memory in found.unembedded]


async def test_the_overlay_is_limited_to_the_newest(truth: Truth, tenant: Tenant) -> None:
    ids = [(await stored(truth, tenant, remember(f"tea {number}")))[0].memory_id for number in range(6)]
    jobs = [job for job in await truth.queue.claim(limit=10, lease_s=60) if job.memory_id in ids[:3]]
    await truth.queue.put_vectors(PROFILE, [(job, vectors()) for job in jobs])
    found = await overlay(truth, tenant, "tea", vector_limit=2, unembedded_limit=2, keyword_limit=4)
    assert (6, 4) == (found.pending_rows, len(found.keyword_ids))
    assert (ids[2], ids[1]) == found.vector_ids
    assert [ids[5], ids[4]] == [memory.memory_id for memory in found.unembedded]


async def test_an_update_makes_a_row_pending_again(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("green tea", key="k"))
    await index_all(truth, tenant)
    await truth.pass_time(60)
    await stored(truth, tenant, remember("black coffee", key="k"))
    found = await overlay(truth, tenant, "coffee")
    assert (1, (memory.memory_id,)) == (found.pending_rows, found.keyword_ids)
    assert () == (await overlay(truth, tenant, "tea")).keyword_ids


# --- keyword search


async def test_keyword_scores_are_bm25_of_the_searched_namespaces(truth: Truth, tenant: Tenant) -> None:
    drawn = random.Random(3)
    words = ["apple", "banana", "cherry", "date", "elder", "fig", "grape"]
    texts = [" ".join(drawn.choices(words, weights=(9, 7, 5, 4, 3, 2, 1), k=drawn.randrange(2, 15))) for _ in range(40)]
    memories = await stored(truth, tenant, *(remember(f"{text} {place}") for place, text in enumerate(texts)))
    await stored(truth, tenant, *(remember(f"fig fig {number}", namespace="other") for number in range(20)))
    await truth.count_terms()
    query = "fig grape apple fig"
    expected = _bm25([terms_of(memory.text) for memory in memories], terms_of(query))
    ranked = sorted(((-score, memory.memory_id) for memory, score in zip(memories, expected, strict=True) if score > 0))
    got = await search(truth, tenant, query, with_default_namespace(EVERYTHING), limit=100)
    assert [memory_id for _, memory_id in ranked] == [memory_id for memory_id, _ in got]
    assert [-score for score, _ in ranked] == pytest.approx([score for _, score in got], rel=1e-5)
    assert got[:7] == await search(truth, tenant, query, with_default_namespace(EVERYTHING), limit=7)


def _bm25(documents: Sequence[Sequence[str]], query: Sequence[str]) -> list[float]:
    """The textbook formula, one document and term at a time."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in query:
            containing = sum(term in other for other in documents)
            weight = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
            count = document.count(term)
            score += weight * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(document) / mean)) if count else 0.0
        scores.append(score)
    return scores


async def test_counts_stay_right_under_updates_and_deletions(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, *(remember(f"apple {number}", key=f"k{number}") for number in range(6)))
    await truth.journal.write(tenant, [Update(Target(key="k0"), Memory(text="banana banana"), ("text",))])
    await truth.journal.write(tenant, [Forget(Target(key="k1"))])
    await truth.journal.write(tenant, [Update(Target(key="k2"), Memory(importance=0.5), ("importance",))])
    await truth.journal.write(tenant, [Update(Target(key="k3"), Memory(namespace="other"), ("namespace",))])
    await truth.count_terms()
    everywhere = await truth.recall.pool(
        tenant,
        EVERYTHING,
        await truth.journal.matching_ids(tenant, EVERYTHING, 10),
        terms=["appl", "banana", "fig"],
        profile=PROFILE,
        neighbours=False,
    )
    assert (5, 10 / 5, [4, 1, 0]) == (
        everywhere[1].rows,
        everywhere[1].mean_length,
        everywhere[1].frequencies.tolist(),
    )
    here = LabelIn(LabelField.NAMESPACE, ("default",))
    _, statistics = await truth.recall.pool(
        tenant,
        here,
        await truth.journal.matching_ids(tenant, here, 10),
        terms=["appl", "banana"],
        profile=PROFILE,
        neighbours=False,
    )
    assert (4, 2.0, [3, 1]) == (statistics.rows, statistics.mean_length, statistics.frequencies.tolist())


async def test_keyword_search_finds_only_what_matches_lives_and_is_the_tenants(
    truth: Truth, tenant: Tenant, stranger: Tenant
) -> None:
    red, _, gone, _ = await stored(
        truth,
        tenant,
        remember("red tea", tags=("red",)),
        remember("blue tea", tags=("blue",)),
        remember("old red tea", tags=("red",)),
        remember("short red tea", tags=("red",), ttl_s=60.0),
    )
    await stored(truth, stranger, remember("their red tea", tags=("red",)))
    await truth.journal.write(tenant, [Forget(Target(memory_id=gone.memory_id))])
    await truth.pass_time(61)
    assert [red.memory_id] == [memory_id for memory_id, _ in await search(truth, tenant, "tea", TagsAny(("red",)))]


async def test_a_query_without_terms_finds_nothing(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("green tea"))
    assert [] == await search(truth, tenant, "the of and")
    assert () == (await overlay(truth, tenant, "the of and")).keyword_ids


async def test_actor_and_date_are_searched_too(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(
        truth, tenant, remember("green tea", actor="Ludmilla", occurred_at=datetime(2024, 3, 9, tzinfo=UTC))
    )
    for text in ("Ludmilla", "March"):
        assert [memory.memory_id] == [memory_id for memory_id, _ in await search(truth, tenant, text)]


# --- the scan


async def test_a_vector_scan_reads_the_vectors_of_what_matches(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    red, blue = await stored(truth, tenant, remember("red", tags=("red",)), remember("blue", tags=("blue",)))
    await stored(truth, stranger, remember("theirs", tags=("red",)))
    await index_all(truth, tenant)
    ids, dense = await truth.recall.vector_scan(tenant, TagsAny(("red",)), profile=PROFILE, limit=10)
    assert ((red.memory_id,), [vectors().dense.tolist()]) == (ids, dense.tolist())
    ids, dense = await truth.recall.vector_scan(tenant, EVERYTHING, profile=PROFILE, limit=10)
    assert (tuple(sorted([red.memory_id, blue.memory_id])), (2, DIMENSION)) == (ids, dense.shape)
    ids, dense = await truth.recall.vector_scan(tenant, EVERYTHING, profile="other", limit=10)
    assert ((), 0) == (ids, len(dense))


# --- the pool


async def test_the_pool_brings_all_that_scoring_needs(truth: Truth, tenant: Tenant) -> None:
    tea, cake = await stored(truth, tenant, remember("tea tea with lemon", tags=("a",)), remember("apple cake"))
    (job,) = [job for job in await truth.queue.claim(limit=10, lease_s=60) if job.memory_id == tea.memory_id]
    await truth.queue.put_vectors(PROFILE, [(job, vectors(0.5))])
    await truth.count_terms()
    rows, statistics = await truth.recall.pool(
        tenant,
        EVERYTHING,
        [cake.memory_id, tea.memory_id],
        terms=["tea", "cake", "none"],
        profile=PROFILE,
        neighbours=True,
    )
    by_id = {row.memory.memory_id: row for row in rows}
    assert {tea.memory_id: tea, cake.memory_id: cake} == {memory_id: row.memory for memory_id, row in by_id.items()}
    first, second = by_id[tea.memory_id], by_id[cake.memory_id]
    assert ([2, 0, 0], [0, 1, 0]) == (first.term_counts.tolist(), second.term_counts.tolist())
    assert (3, 2, None) == (first.length, second.length, second.vectors)
    assert first.vectors is not None
    for name in ("dense", "sentences", "tokens", "token_ids"):
        assert getattr(vectors(0.5), name).tolist() == getattr(first.vectors, name).tolist()
    assert (2, 2.5, [1, 1, 0]) == (statistics.rows, statistics.mean_length, statistics.frequencies.tolist())


async def test_the_pool_refuses_ids_that_do_not_match_live_or_belong(
    truth: Truth, tenant: Tenant, stranger: Tenant
) -> None:
    red, blue, gone, short = await stored(
        truth,
        tenant,
        remember("red tea", tags=("red",)),
        remember("blue tea", tags=("blue",)),
        remember("old red tea", tags=("red",)),
        remember("short red tea", tags=("red",), ttl_s=60.0),
    )
    (theirs,) = await stored(truth, stranger, remember("their red tea", tags=("red",)))
    await truth.journal.write(tenant, [Forget(Target(memory_id=gone.memory_id))])
    await truth.pass_time(61)
    ids = [memory.memory_id for memory in (red, blue, gone, short, theirs)]
    rows, _ = await truth.recall.pool(
        tenant, TagsAny(("red",)), ids, terms=["tea"], profile=PROFILE, neighbours=False, exact_text="their red tea"
    )
    assert [red.memory_id] == [row.memory.memory_id for row in rows]


async def test_the_pool_brings_the_turns_before_and_after(truth: Truth, tenant: Tenant) -> None:
    turns = await stored(
        truth, tenant, *(remember(f"turn {place}", session_id="s", sequence=place * 10) for place in range(8))
    )
    await stored(
        truth,
        tenant,
        remember("other session", session_id="t", sequence=31),
        remember("other namespace", session_id="s", sequence=31, namespace="other"),
        remember("no place", session_id="s"),
    )
    await truth.journal.write(tenant, [Forget(Target(memory_id=turns[2].memory_id))])
    candidates = [turns[3].memory_id, turns[4].memory_id]
    rows, _ = await truth.recall.pool(tenant, EVERYTHING, candidates, terms=["turn"], profile=PROFILE, neighbours=True)
    assert {"turn 1": True, "turn 3": False, "turn 4": False, "turn 5": True} == {
        row.memory.text: row.neighbour for row in rows
    }
    assert 4 == len(rows)
    assert all(row.term_counts.tolist() == [1] for row in rows)
    narrow = AllOf((LabelIn(LabelField.MEMORY_ID, (*candidates, turns[1].memory_id)),))
    rows, _ = await truth.recall.pool(tenant, narrow, candidates, terms=[], profile=PROFILE, neighbours=True)
    assert ["turn 1", "turn 3", "turn 4"] == sorted(row.memory.text for row in rows)
    rows, _ = await truth.recall.pool(tenant, EVERYTHING, candidates, terms=[], profile=PROFILE, neighbours=False)
    assert ["turn 3", "turn 4"] == sorted(row.memory.text for row in rows)


@pytest.mark.parametrize("by", ["memory_id", "key", "coordinate"])
async def test_the_pool_brings_the_memory_named_exactly(truth: Truth, tenant: Tenant, by: str) -> None:
    tea, cake = await stored(truth, tenant, remember("tea", key="drink"), remember("cake", key="food"))
    rows, _ = await truth.recall.pool(
        tenant,
        EVERYTHING,
        [cake.memory_id],
        terms=[],
        profile=PROFILE,
        neighbours=False,
        exact=Target(**{by: getattr(tea, by)}),
    )
    assert {tea.memory_id, cake.memory_id} == {row.memory.memory_id for row in rows}


async def test_the_pool_brings_memories_of_the_verbatim_text(truth: Truth, tenant: Tenant) -> None:
    tea, _, twin = await stored(truth, tenant, remember("Green tea."), remember("green tea."), remember("Green tea."))
    rows, _ = await truth.recall.pool(
        tenant, EVERYTHING, [], terms=[], profile=PROFILE, neighbours=False, exact_text="Green tea."
    )
    assert {tea.memory_id, twin.memory_id} == {row.memory.memory_id for row in rows}


async def test_an_empty_pool_is_empty(truth: Truth, tenant: Tenant) -> None:
    rows, _ = await truth.recall.pool(tenant, EVERYTHING, [], terms=["tea"], profile=PROFILE, neighbours=True)
    assert [] == rows


async def test_a_pool_read_again_shows_what_changed_meanwhile(truth: Truth, tenant: Tenant) -> None:
    turns = await stored(
        truth, tenant, *(remember(f"turn {place}", session_id="s", sequence=place) for place in range(5))
    )

    async def read(*, details: bool = True) -> dict[str, tuple[list[int], float | None, int]]:
        ids = [turns[1].memory_id, turns[3].memory_id]
        rows, _ = await truth.recall.pool(
            tenant, EVERYTHING, ids, terms=["new", "turn"], profile=PROFILE, neighbours=True, details=details
        )
        return {
            row.memory.text: (
                row.term_counts.tolist(),
                None if row.vectors is None else float(row.vectors.dense[0]),
                0 if row.vectors is None or not details else len(row.vectors.tokens),
            )
            for row in rows
        }

    plain = ([0, 1], None, 0)
    assert {f"turn {place}": plain for place in range(5)} == await read()
    await index_all(truth, tenant)
    embedded = ([0, 1], float(vectors().dense[0]), len(vectors().tokens))
    without = (*embedded[:2], 0)
    assert {f"turn {place}": without for place in range(5)} == await read(details=False)
    for _ in range(2):
        assert {f"turn {place}": embedded for place in range(5)} == await read()
    changed = {1: "new candidate", 2: "new neighbour"}
    for place, text in changed.items():
        await truth.journal.write(
            tenant, [Update(Target(memory_id=turns[place].memory_id), Memory(text=text), mask=("text",))]
        )
    await truth.journal.write(tenant, [Forget(Target(memory_id=turns[3].memory_id))])
    assert {"turn 0": embedded, "new candidate": ([1, 0], None, 0), "new neighbour": ([1, 0], None, 0)} == await read()
    jobs = await truth.queue.claim(limit=10, lease_s=60)
    await truth.queue.put_vectors(PROFILE, [(job, vectors(0.7)) for job in jobs if job.memory is not None])
    again = (float(vectors(0.7).dense[0]), len(vectors(0.7).tokens))
    assert {
        "turn 0": embedded,
        "new candidate": ([1, 0], *again),
        "new neighbour": ([1, 0], *again),
    } == await read()


async def test_a_few_rows_that_the_index_may_not_hold_come_along(truth: Truth, tenant: Tenant) -> None:
    old, other = await stored(truth, tenant, remember("old tea"), remember("old cake", tags=("other",)))
    collection = await truth.queue.active_collection(tenant, PROFILE, DIMENSION)

    async def read(filter: Filter = EVERYTHING) -> tuple[set[str], set[str], int, bool]:
        rows, stats = await truth.recall.pool(
            tenant, filter, [], terms=[], profile=PROFILE, neighbours=False, epoch=collection.epoch
        )
        assert stats.open is not None
        ids = {row.memory.memory_id for row in rows}
        return ids, set(stats.open.ids), stats.open.pending_rows, stats.open.more

    both = {old.memory_id, other.memory_id}
    assert (both, both, 2, False) == await read()
    assert ({other.memory_id}, {other.memory_id}, 1, False) == await read(TagsAny(("other",)))
    await index_all(truth, tenant)
    assert (both, both, 0, False) == await read()
    await truth.pass_time(11)
    assert (set(), set(), 0, False) == await read()
    new = await stored(truth, tenant, *(remember(f"note {number}") for number in range(16)))
    ids = {memory.memory_id for memory in new}
    assert (ids, ids, 16, False) == await read()
    await stored(truth, tenant, remember("one too many"))
    assert (set(), set(), 0, True) == await read()


async def test_vectors_can_be_put_by_a_recall_without_a_claim(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("tea"))
    job = IndexJob(tenant, memory.memory_id, memory.version, 0, memory, None, "")
    await truth.queue.put_vectors(PROFILE, [(job, vectors())])
    found = await overlay(truth, tenant)
    assert ((memory.memory_id,), ()) == (found.vector_ids, found.unembedded)


async def test_importances_are_counted_by_namespace_for_a_sketch(
    truth: Truth, tenant: Tenant, stranger: Tenant
) -> None:
    values = [0.0, -2.5, 1e-12, 3.0, 3.0, 250.0, 7e13]
    await stored(
        truth, tenant, *(remember(f"note {value} {number}", importance=value) for number, value in enumerate(values))
    )
    (gone,) = await stored(truth, tenant, remember("gone", importance=5.0))
    await truth.journal.write(tenant, [Forget(Target(memory_id=gone.memory_id))])
    await stored(truth, tenant, remember("elsewhere", importance=9.0, namespace="other"), remember("says nothing"))
    await stored(truth, stranger, remember("a stranger's", importance=11.0))
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    assert sketch.to_counts() == dict(
        sorted((await truth.recall.importance_counts(tenant, "default", fresh_s=0)).items())
    )
    assert {} == dict(await truth.recall.importance_counts(tenant, "empty", fresh_s=0))
    assert 1 == sum((await truth.recall.importance_counts(stranger, "default", fresh_s=0)).values())


async def test_importances_are_counted_anew_when_the_counts_are_old(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one", importance=1.0))
    assert 1 == sum((await truth.recall.importance_counts(tenant, "default", fresh_s=0)).values())
    await stored(truth, tenant, remember("two", importance=2.0))
    assert 2 == sum((await truth.recall.importance_counts(tenant, "default", fresh_s=0)).values())

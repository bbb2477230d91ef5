"""Recall on the brain: what is merged, what is passed on, and what is said when long-term memory is away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from brain_server.core.own_hits import WAITING
from brain_server.ports import SystemClock
from soma_contract.errors import (
    BudgetSpentError,
    CircuitBreakerOpenError,
    ComponentUnavailableError,
    DimensionMismatchError,
    MemoryNotFoundError,
)
from soma_contract.filters import LabelField, LabelIn
from soma_contract.memory import Forget, Kind, Memory, Remember, Target, Vector
from soma_contract.recall import Hit, Leg, LegState, Source
from tests.servicers.brain.kit import TENANT, Brain, Shelf, away, legs, observed, read, recalled, stored_hit, texts


async def queued(brain: Brain, shelf: Shelf, *memories: Memory, age_s: float = 0.0) -> None:
    """Write memories while the memory server is away, so long ago."""
    shelf.outage = away()
    clock = SystemClock()
    for memory in memories:
        await brain.remembering.write(TENANT, Remember(memory), deadline_s=5.0)
    if age_s:
        at = clock.now() - timedelta(seconds=age_s)
        for entry in list(brain.outbox.pending(TENANT)):
            object.__setattr__(entry, "origin_at", at)


async def test_sfm_unavailable_returns_wm_only(brain: Brain, shelf: Shelf) -> None:
    shelf.hits = [stored_hit("the red bicycle is in the shed", 0.9, 0.8)]
    await observed(brain, "the red bicycle has a flat tyre", "it rains")
    shelf.outage = CircuitBreakerOpenError(component="memory")
    answer = await recalled(brain, "where is the red bicycle?")
    assert ["the red bicycle has a flat tyre", "it rains"] == texts(answer)
    assert {Source.WORKING} == {read(hit).source for hit in answer.hits}
    assert answer.summary.degraded
    assert (LegState.RAN, LegState.DEGRADED) == (legs(answer)[Leg.WORKING], legs(answer)[Leg.DENSE])
    assert {"BREAKER_OPEN:memory"} == {report.cause for report in answer.summary.legs if report.cause}
    shelf.outage = None
    answer = await recalled(brain, "where is the red bicycle?")
    assert "the red bicycle is in the shed" in texts(answer)
    assert not answer.summary.degraded


async def test_late_long_term_memory_is_dropped_and_named(brain: Brain, shelf: Shelf) -> None:
    await observed(brain, "noted")
    shelf.outage = BudgetSpentError(stage="memory")
    answer = await recalled(brain, "noted")
    assert (["noted"], LegState.DROPPED) == (texts(answer), legs(answer)[Leg.DENSE])


async def test_nothing_found_during_an_outage_is_an_error_and_never_an_empty_success(
    brain: Brain, shelf: Shelf
) -> None:
    shelf.outage = away()
    with pytest.raises(ComponentUnavailableError):
        await recalled(brain, "anything")
    await observed(brain, "noted")
    with pytest.raises(ComponentUnavailableError):
        await recalled(brain, "noted", filter=LabelIn(LabelField.KIND, (Kind.SEMANTIC.value,)))
    shelf.outage = None
    assert ([], False) == (texts(answer := await recalled(brain, "x", session_id="")), answer.summary.degraded)


async def test_who_wants_no_degraded_answer_gets_the_outage(brain: Brain, shelf: Shelf) -> None:
    await observed(brain, "noted")
    shelf.outage = away()
    with pytest.raises(ComponentUnavailableError):
        await recalled(brain, "noted", allow_degraded=False)


async def test_a_refusal_of_the_memory_server_is_passed_on_as_it_is(brain: Brain, shelf: Shelf) -> None:
    await observed(brain, "noted")
    shelf.outage = MemoryNotFoundError(field="like")
    with pytest.raises(MemoryNotFoundError):
        await recalled(brain, "noted")


async def test_hits_that_nothing_is_merged_with_are_passed_on_unread(brain: Brain, shelf: Shelf) -> None:
    shelf.hits = [stored_hit(f"hit {number}", 1 / (number + 1), 0.5) for number in range(5)]
    answer = await recalled(brain, "hit", session_id="")
    assert [f"hit {number}" for number in range(5)] == texts(answer)
    assert [] == shelf.reads
    assert (LegState.SKIPPED, LegState.SKIPPED) == (legs(answer)[Leg.WORKING], legs(answer)[Leg.PENDING])
    answer = await recalled(brain, "hit", session_id="a session that does not exist")
    assert [] == shelf.reads
    await observed(brain, "an item")
    await recalled(brain, "hit")
    assert sorted(hit.memory.memory_id for hit in shelf.hits) == sorted(shelf.reads), "now each is read, once"


async def test_items_stand_among_long_term_hits_of_their_likeness(brain: Brain, shelf: Shelf) -> None:
    shelf.hits = [
        stored_hit("alpha beta gamma delta", 0.95, 0.99),
        stored_hit("alpha beta", 0.60, 0.70),
        stored_hit("unrelated entirely", 0.10, 0.05),
    ]
    await observed(brain, "alpha beta gamma", "no word of it", reward=0.9)
    answer = await recalled(brain, "alpha beta gamma delta")
    assert [
        "alpha beta gamma delta",
        "alpha beta gamma",
        "alpha beta",
        "unrelated entirely",
        "no word of it",
    ] == texts(answer)
    assert [read(hit).score for hit in answer.hits] == sorted((read(hit).score for hit in answer.hits), reverse=True)


async def test_the_long_term_order_stands_whatever_is_placed_into_it(brain: Brain, shelf: Shelf) -> None:
    order = [("one common word", 0.9, 0.2), ("two common words", 0.8, 0.9), ("three", 0.7, 0.5), ("four", 0.6, 0.6)]
    shelf.hits = [stored_hit(*each) for each in order]
    await observed(brain, "common", "a common word of mine", reward=0.9)
    found = [
        text for text in texts(await recalled(brain, "common word")) if text in dict.fromkeys(t for t, *_ in order)
    ]
    assert [text for text, *_ in order] == found


async def test_an_item_that_became_a_memory_is_one_hit_with_the_signals_of_both(brain: Brain, shelf: Shelf) -> None:
    (item_id,) = await observed(brain, "the safe stands behind the picture", reward=1.0)
    await brain.promoting.promote_items(TENANT, "s", [item_id])
    shelf.hits = [stored_hit("the safe stands behind the picture", 0.9, 0.9, memory_id=item_id)]
    answer = await recalled(brain, "safe picture")
    (hit,) = (read(hit) for hit in answer.hits)
    assert (item_id, Source.LONG_TERM, 0.9) == (hit.memory.memory_id, hit.source, hit.signals.dense)
    assert hit.signals.working is not None
    assert (item_id,) == shelf.queries[-1].recheck_ids


async def test_a_forgotten_memory_leaves_working_memory_with_the_next_recall(brain: Brain, shelf: Shelf) -> None:
    (item_id, _) = await observed(brain, "to be forgotten", "to be kept")
    await brain.promoting.promote_items(TENANT, "s", [item_id])
    shelf.gone = frozenset({item_id})
    answer = await recalled(brain, "forgotten kept")
    assert ["to be kept"] == texts(answer)
    assert () == answer.summary.gone_ids, "the caller asked after none"
    assert 1 == await brain.working.count(TENANT, "s")


async def test_a_queued_promotion_is_not_taken_for_forgotten_by_a_memory_server_that_does_not_have_it_yet(
    brain: Brain, shelf: Shelf
) -> None:
    (item_id,) = await observed(brain, "promoted in the outage", reward=1.0)
    shelf.outage = away()
    await brain.promoting.promote_items(TENANT, "s", [item_id])
    shelf.outage = None
    brain.delivery.pace.limit = 0
    shelf.gone = frozenset({item_id})
    answer = await recalled(brain, "promoted outage", recheck_ids=(item_id,))
    assert (["promoted in the outage"], ()) == (texts(answer), answer.summary.gone_ids)
    assert 1 == await brain.working.count(TENANT, "s")
    await brain.remembering.write(TENANT, Forget(Target(memory_id=item_id)), deadline_s=5.0)
    answer = await recalled(brain, "promoted outage", recheck_ids=(item_id,))
    assert ([], (item_id,)) == (texts(answer), answer.summary.gone_ids)


async def test_a_pending_deletion_masks_long_term_hits_and_items(brain: Brain, shelf: Shelf) -> None:
    (item_id,) = await observed(brain, "wrong rumour", reward=1.0)
    await brain.promoting.promote_items(TENANT, "s", [item_id])
    hit = stored_hit("another wrong rumour", 0.9, 0.9)
    shelf.hits = [hit]
    shelf.outage = away()
    for memory_id in (item_id, hit.memory.memory_id):
        await brain.remembering.write(TENANT, Forget(Target(memory_id=memory_id)), deadline_s=5.0)
    shelf.outage = None
    brain.delivery.pace.limit = 0
    assert [] == texts(await recalled(brain, "wrong rumour"))


async def test_a_queued_write_is_found_at_once_and_is_one_hit_when_it_is_stored_meanwhile(
    brain: Brain, shelf: Shelf
) -> None:
    await queued(brain, shelf, Memory(text="the meeting moved to Thursday"))
    answer = await recalled(brain, "when is the meeting?", session_id="")
    (hit,) = (read(hit) for hit in answer.hits)
    assert ("the meeting moved to Thursday", Source.PENDING) == (hit.memory.text, hit.source)
    assert (LegState.RAN, LegState.DEGRADED) == (legs(answer)[Leg.PENDING], legs(answer)[Leg.DENSE])
    shelf.hits = [Hit(hit.memory, 0.9)]
    shelf.outage = None
    answer = await recalled(brain, "when is the meeting?", session_id="")
    assert ["the meeting moved to Thursday"] == texts(answer)


async def test_a_queued_write_is_found_by_likeness_too_once_it_has_waited(brain: Brain, shelf: Shelf) -> None:
    await queued(brain, shelf, Memory(text="umbrella", embedding=None), age_s=2 * WAITING.total_seconds())
    vector = (await brain.vectors.of(["umbrella"]))[0]
    answer = await recalled(brain, "what", session_id="", text_embedding=Vector.of(vector))
    assert ["umbrella"] == texts(answer)
    with pytest.raises(ComponentUnavailableError):
        await recalled(brain, "unlike anything", session_id="", min_score=0.99)


async def test_filters_and_limits_hold_for_pending_writes(brain: Brain, shelf: Shelf) -> None:
    memories = [Memory(text=f"shared word {number}", relevance=number / 10) for number in range(10)]
    await queued(brain, shelf, *memories)
    answer = await recalled(brain, "shared word", session_id="", limit=3, min_relevance=0.5)
    assert 3 == len(answer.hits)
    assert all((read(hit).memory.relevance or 0) >= 0.5 for hit in answer.hits)


async def test_a_token_budget_is_kept_over_everything_that_is_merged(brain: Brain, shelf: Shelf) -> None:
    shelf.hits = [stored_hit("ten words " * 20, 0.9, 0.9), stored_hit("short words", 0.5, 0.5)]
    await observed(brain, "few words", reward=0.9)
    answer = await recalled(brain, "words", token_budget=12)
    assert {"short words", "few words"} == set(texts(answer))
    assert answer.summary.tokens <= 12
    assert answer.summary.tokens == sum(read(hit).tokens for hit in answer.hits)


async def test_only_the_legs_asked_for_run(brain: Brain, shelf: Shelf) -> None:
    await observed(brain, "an item")
    answer = await recalled(brain, "item", legs=frozenset({Leg.WORKING}))
    assert (["an item"], []) == (texts(answer), shelf.queries)
    shelf.hits = [stored_hit("a memory", 0.9, 0.9)]
    answer = await recalled(brain, "item", legs=frozenset({Leg.DENSE}))
    assert (["a memory"], LegState.SKIPPED) == (texts(answer), legs(answer)[Leg.WORKING])
    assert frozenset({Leg.DENSE}) == shelf.queries[-1].legs


async def test_only_items_among_the_hits_count_as_used(brain: Brain, shelf: Shelf) -> None:
    await observed(brain, "alpha", "beta", "gamma", reward=0.9)
    await recalled(brain, "beta", limit=1)
    assert [0, 1, 0] == [item.uses for item in await brain.working.items(TENANT, "s")]


async def test_a_query_vector_of_another_length_is_refused(brain: Brain) -> None:
    await observed(brain, "an item")
    with pytest.raises(DimensionMismatchError):
        await recalled(brain, embedding=Vector.of([1.0, 2.0]), legs=frozenset({Leg.WORKING}))

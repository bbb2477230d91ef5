"""What every IndexQueue must do: the in-memory twin and Postgres pass the same tests."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from memory_server.ports import Collection, CollectionLostError, IndexJob
from soma_contract.errors import EmbeddingProfileMismatchError
from soma_contract.memory import Forget, Memory, Target, Update, Vector
from soma_contract.tenant import Tenant, admin_tenant
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


async def claimed(truth: Truth, limit: int = 100, lease_s: float = 60.0) -> list[IndexJob]:
    return await truth.queue.claim(limit=limit, lease_s=lease_s)


async def collection_of(truth: Truth, tenant: Tenant) -> Collection:
    return await truth.queue.active_collection(tenant, PROFILE, DIMENSION)


# --- claiming


async def test_a_written_memory_is_claimed_as_it_stands(truth: Truth, tenant: Tenant) -> None:
    given = Vector.of([1.0, 0.0])
    (memory,) = await stored(truth, tenant, remember("Two teas, please", actor="Ann", key="k", embedding=given))
    (job,) = await claimed(truth)
    assert (tenant, memory.memory_id, 1, 1) == (job.tenant, job.memory_id, job.version, job.attempts)
    assert job.memory is not None
    assert ("Two teas, please", given) == (job.memory.text, job.memory.embedding)
    assert ("Ann Two teas, please", None) == (job.keyword_text, job.vectors)


async def test_several_writes_of_a_memory_are_one_job(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one", key="k"), remember("two", key="k"))
    await stored(truth, tenant, remember("three", key="k"))
    (job,) = await claimed(truth)
    assert job.memory is not None
    assert ("three", 3) == (job.memory.text, job.version)


async def test_a_claimed_job_is_nobody_elses(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, *(remember(f"note {number}") for number in range(30)))
    batches = await asyncio.gather(*(claimed(truth, 10) for _ in range(6)))
    ids = [job.memory_id for batch in batches for job in batch]
    assert (30, 30) == (len(ids), len(set(ids)))
    assert [] == await claimed(truth)


async def test_a_memory_in_work_is_not_claimed_again_when_it_is_written(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one", key="k"))
    jobs = await claimed(truth)
    await stored(truth, tenant, remember("two", key="k"))
    assert [] == await claimed(truth)
    await truth.queue.settle(jobs, await collection_of(truth, tenant))
    (job,) = await claimed(truth)
    assert job.memory is not None
    assert "two" == job.memory.text


async def test_the_jobs_of_a_worker_that_died_are_claimed_after_its_lease(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"))
    (first,) = await claimed(truth, lease_s=60.0)
    await truth.pass_time(61)
    (second,) = await claimed(truth)
    assert (first.memory_id, 2) == (second.memory_id, second.attempts)
    await truth.queue.settle([first], await collection_of(truth, tenant))
    assert 1 == (await truth.queue.lag(tenant)).rows
    await truth.queue.settle([second], await collection_of(truth, tenant))
    assert 0 == (await truth.queue.lag(tenant)).rows


async def test_a_small_tenant_does_not_wait_behind_a_large_one(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    await stored(truth, tenant, *(remember(f"note {number}") for number in range(200)))
    await stored(truth, stranger, remember("one"))
    jobs = await claimed(truth, 20)
    assert 20 == len(jobs)
    assert 1 == sum(job.tenant == stranger for job in jobs)


async def test_every_tenant_has_its_turn(truth: Truth) -> None:
    tenants = [admin_tenant(f"turn-{number}", reason="tests") for number in range(40)]
    for one in tenants:
        await stored(truth, one, *(remember(f"note {number}") for number in range(3)))
    seen: set[str] = set()
    for _ in range(6):
        seen.update(job.tenant.name for job in await claimed(truth, 16))
    assert {one.name for one in tenants} == seen


# --- vectors


async def test_vectors_are_kept_for_the_version_they_were_made_for(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="k"))
    jobs = await claimed(truth)
    made = vectors(0.25)
    await truth.queue.put_vectors(PROFILE, [(job, made) for job in jobs])
    await truth.queue.postpone(jobs, "away", counts=False)
    await truth.pass_time(5)
    (again,) = await claimed(truth)
    assert again.vectors is not None
    for name in ("dense", "sentences", "tokens", "token_ids"):
        assert getattr(made, name).tolist() == getattr(again.vectors, name).tolist()
        assert getattr(made, name).dtype == getattr(again.vectors, name).dtype


async def test_vectors_of_a_version_that_has_passed_are_dropped(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="k"))
    jobs = await claimed(truth)
    await stored(truth, tenant, remember("coffee", key="k"))
    await truth.queue.put_vectors(PROFILE, [(job, vectors()) for job in jobs])
    await truth.queue.settle(jobs, await collection_of(truth, tenant))
    (again,) = await claimed(truth)
    assert again.vectors is None


async def test_vectors_of_a_forgotten_memory_are_not_kept(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="k"))
    jobs = await claimed(truth)
    await truth.journal.write(tenant, [Forget(Target(key="k"))])
    await truth.queue.put_vectors(PROFILE, [(job, vectors()) for job in jobs])
    await stored(truth, tenant, remember("tea", key="k"))
    await truth.queue.settle(jobs, await collection_of(truth, tenant))
    (again,) = await claimed(truth)
    assert again.vectors is None


async def test_a_change_that_leaves_the_text_alone_keeps_the_vectors(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="k"))
    jobs = await claimed(truth)
    await truth.queue.put_vectors(PROFILE, [(job, vectors()) for job in jobs])
    await truth.queue.settle(jobs, await collection_of(truth, tenant))
    await truth.journal.write(tenant, [Update(Target(key="k"), Memory(importance=0.5), ("importance",))])
    (again,) = await claimed(truth)
    assert again.vectors is not None
    assert vectors().dense.tolist() == again.vectors.dense.tolist()


# --- settling


async def test_a_settled_memory_leaves_the_queue(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"), remember("two"))
    assert 2 == (await truth.queue.lag(tenant)).rows
    await truth.queue.settle(await claimed(truth), await collection_of(truth, tenant))
    lag = await truth.queue.lag(tenant)
    assert (0, 0.0, 0) == (lag.rows, lag.oldest_s, lag.poisoned)
    assert [] == await claimed(truth)


async def test_a_forgotten_memory_is_a_job_until_it_has_left_the_index(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("one", key="k"))
    await truth.queue.settle(await claimed(truth), await collection_of(truth, tenant))
    await truth.journal.write(tenant, [Forget(Target(key="k"))])
    (job,) = await claimed(truth)
    assert (memory.memory_id, None, 2) == (job.memory_id, job.memory, job.version)
    await truth.queue.settle([job], None)
    assert 0 == (await truth.queue.lag(tenant)).rows


async def test_a_memory_that_came_back_while_it_left_keeps_its_job(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one", key="k"))
    await truth.journal.write(tenant, [Forget(Target(key="k"))])
    jobs = await claimed(truth)
    await stored(truth, tenant, remember("two", key="k"))
    await truth.queue.settle(jobs, await collection_of(truth, tenant))
    (job,) = await claimed(truth)
    assert job.memory is not None
    assert "two" == job.memory.text


async def test_an_expired_memory_leaves_the_index(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one", ttl_s=60.0))
    await truth.pass_time(61)
    (job,) = await claimed(truth)
    assert job.memory is None


# --- failing


async def test_a_failing_job_comes_back_later_each_time(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"))
    for attempt in range(1, 5):
        (job,) = await claimed(truth)
        assert attempt == job.attempts
        await truth.queue.postpone([job], "BROKEN", counts=True)
        assert [] == await claimed(truth)
        await truth.pass_time(2.0 ** (attempt - 1) + 0.1)


async def test_an_outage_does_not_count_against_a_job(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"))
    for _ in range(20):
        (job,) = await claimed(truth)
        assert 1 == job.attempts
        await truth.queue.postpone([job], "UNAVAILABLE", counts=False)
        await truth.pass_time(2)
    assert 1 == (await truth.queue.lag(tenant)).rows


async def test_a_poisoned_job_is_set_apart_and_others_go_on(truth: Truth, tenant: Tenant) -> None:
    (bad,) = await stored(truth, tenant, remember("bad"))
    for _ in range(8):
        (job,) = await claimed(truth)
        await truth.queue.postpone([job], "BROKEN", counts=True)
        await truth.pass_time(400)
    lag = await truth.queue.lag(tenant)
    assert (0, 1) == (lag.rows, lag.poisoned)
    (good,) = await stored(truth, tenant, remember("good"))
    assert [good.memory_id] == [job.memory_id for job in await claimed(truth)]
    await truth.pass_time(3_700)
    assert bad.memory_id in [job.memory_id for job in [*await claimed(truth), *await claimed(truth)]]


async def test_a_job_that_failed_often_is_claimed_alone(truth: Truth, tenant: Tenant) -> None:
    (bad,) = await stored(truth, tenant, remember("bad"))
    for _ in range(3):
        (job,) = await claimed(truth)
        await truth.queue.postpone([job], "BROKEN", counts=True)
        await truth.pass_time(10)
    await stored(truth, tenant, remember("good"), remember("better"))
    batches = [[job.memory_id for job in await claimed(truth)] for _ in range(2)]
    assert [[bad.memory_id]] == [batch for batch in batches if bad.memory_id in batch]
    assert 3 == sum(len(batch) for batch in batches)


# --- lag


async def test_lag_is_told_by_tenant_and_in_all(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    await stored(truth, tenant, remember("one"), remember("two"))
    await truth.pass_time(30)
    await stored(truth, stranger, remember("three"))
    mine, theirs, both = (
        await truth.queue.lag(tenant),
        await truth.queue.lag(stranger),
        await truth.queue.lag(),
    )
    assert (2, 1, 3) == (mine.rows, theirs.rows, both.rows)
    assert 30 == pytest.approx(mine.oldest_s, abs=5)
    assert 0 == pytest.approx(theirs.oldest_s, abs=5)
    assert 30 == pytest.approx(both.oldest_s, abs=5)


# --- collections and epochs


async def test_tenants_share_the_collection_of_their_profile(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    mine, theirs = await collection_of(truth, tenant), await collection_of(truth, stranger)
    assert mine == theirs
    assert ("", PROFILE, DIMENSION, False) == (mine.tenant_name, mine.profile, mine.dimension, mine.epoch_known)
    assert [mine] == await truth.queue.collections()


async def test_a_dedicated_tenant_has_a_collection_of_its_own(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    await truth.registry.create_tenant(tenant.name, "", dedicated=True)
    mine, theirs = await collection_of(truth, tenant), await collection_of(truth, stranger)
    assert (tenant.name, "") == (mine.tenant_name, theirs.tenant_name)
    assert mine.name != theirs.name
    assert 2 == len(await truth.queue.collections())


async def test_another_profile_than_a_tenants_is_refused(truth: Truth, tenant: Tenant) -> None:
    await collection_of(truth, tenant)
    with pytest.raises(EmbeddingProfileMismatchError) as refused:
        await truth.queue.active_collection(tenant, "other-model", DIMENSION)
    assert ("test-profile (8)", "other-model (8)") == (
        refused.value.metadata["stored"],
        refused.value.metadata["configured"],
    )


async def test_a_collection_that_took_rows_is_known_to_have_had_them(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"))
    await truth.queue.settle(await claimed(truth), await collection_of(truth, tenant))
    (collection,) = await truth.queue.collections()
    assert collection.epoch_known


async def test_a_lost_collections_rows_are_queued_again(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    for one in (tenant, stranger):
        await stored(truth, one, *(remember(f"note {number}") for number in range(25)))
    old = await collection_of(truth, tenant)
    await truth.queue.settle(await claimed(truth), old)
    fresh = await truth.queue.new_epoch(old)
    assert fresh.epoch > old.epoch
    assert (25, 50) == ((await truth.queue.lag(tenant)).rows, (await truth.queue.lag()).rows)
    jobs = await claimed(truth)
    assert 50 == len({(job.tenant, job.memory_id) for job in jobs})
    await truth.queue.settle(jobs, fresh)
    assert 0 == (await truth.queue.lag()).rows


async def test_a_collection_is_lost_once_however_many_notice(truth: Truth, tenant: Tenant) -> None:
    old = await collection_of(truth, tenant)
    fresh = await asyncio.gather(*(truth.queue.new_epoch(old) for _ in range(5)))
    assert 1 == len({collection.epoch for collection in fresh})


async def test_a_collection_that_another_has_replaced_cannot_be_declared_lost(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"))
    present = await collection_of(truth, tenant)
    await truth.queue.settle(await claimed(truth), present)
    replaced = replace(present, name=f"{present.name}_before")
    with pytest.raises(CollectionLostError, match=replaced.name):
        await truth.queue.new_epoch(replaced)
    assert (present.name, present.epoch) == ((now := await collection_of(truth, tenant)).name, now.epoch)
    assert 0 == (await truth.queue.lag(tenant)).rows, "nothing was queued again"


async def test_what_was_settled_into_a_lost_collection_is_not_indexed(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("one"))
    old = await collection_of(truth, tenant)
    jobs = await claimed(truth)
    await truth.queue.new_epoch(old)
    await truth.queue.settle(jobs, old)
    assert 1 == (await truth.queue.lag(tenant)).rows
    assert 1 == len(await claimed(truth))


async def test_a_dedicated_collections_loss_is_its_tenants_alone(
    truth: Truth, tenant: Tenant, stranger: Tenant
) -> None:
    await truth.registry.create_tenant(tenant.name, "", dedicated=True)
    for one in (tenant, stranger):
        await stored(truth, one, remember("one"))
        await truth.queue.settle(await claimed(truth), await collection_of(truth, one))
    await truth.queue.new_epoch(await collection_of(truth, stranger))
    assert [stranger] == [job.tenant for job in await claimed(truth)]


async def test_a_workers_matrices_survive_the_round_trip_empty(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="k"))
    jobs = await claimed(truth)
    made = vectors()
    bare = type(made)(made.dense, np.zeros((0, DIMENSION), np.int8), np.zeros((0, 64), np.int8), np.zeros(0, np.int32))
    await truth.queue.put_vectors(PROFILE, [(job, bare) for job in jobs])
    await truth.queue.postpone(jobs, "away", counts=False)
    await truth.pass_time(5)
    (again,) = await claimed(truth)
    assert again.vectors is not None
    shapes = again.vectors.sentences.shape, again.vectors.tokens.shape, again.vectors.token_ids.shape
    assert ((0, DIMENSION), (0, 64), (0,)) == shapes

"""What every Journal must do: the in-memory twin and Postgres pass the same tests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from soma_contract.coordinate import coordinate_of
from soma_contract.errors import (
    BudgetSpentError,
    FieldViolationError,
    KeyTakenError,
    MemoryExistsError,
    MemoryNotFoundError,
    RequestIdReusedError,
    VersionMismatchError,
)
from soma_contract.ids import keyed_memory_id, new_memory_id
from soma_contract.memory import Command, Forget, Kind, Memory, Origin, Provenance, Target, Update, Vector, View
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import (
    Truth,
    remember,
    stored,
    stranger,
    tenant,
    truth,
    truth_database,
    truth_in_postgres,
    truth_name,
    written,
)

__all__ = ["stranger", "tenant", "truth", "truth_database", "truth_in_postgres", "truth_name"]

WHOLE = Memory(
    namespace="work",
    key="plan.ß",
    kind=Kind.PROCEDURAL,
    schema_type="Plan",
    schema_version="2",
    persona_id="coder",
    text="Grüße, 世界 \\ \" ' {a,b} \x01\n",
    payload_json='{"n": 123456789012345678901234567890, "x": 1.10, "s": "ü"}',
    tags=("a", "b,c", 'd"e', "f\\g", "{h}", ""),
    actor="Ann",
    session_id="s-1",
    sequence=2**62,
    provenance=Provenance("bob", "mail", 0.25),
    importance=0.1,
    relevance=1.0,
    occurred_at=datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
    expires_at=datetime(2199, 1, 1, tzinfo=UTC),
    embedding=Vector.of([0.6, 0.8, 0.0]),
    embedding_model="mini",
)


async def read(truth: Truth, tenant: Tenant, memory_id: str) -> Memory | None:
    (memory,) = await truth.journal.get(tenant, [Target(memory_id=memory_id)])
    return memory


# --- remembering


async def test_every_field_of_a_memory_is_read_back_as_it_was_written(truth: Truth, tenant: Tenant) -> None:
    (answer,) = await stored(truth, tenant, remember(**{name: getattr(WHOLE, name) for name in WHOLE.__slots__}))
    (basic,) = await truth.journal.get(tenant, [Target(memory_id=answer.memory_id)])
    (full,) = await truth.journal.get(tenant, [Target(memory_id=answer.memory_id)], view=View.FULL)
    expected = replace(
        WHOLE,
        memory_id=keyed_memory_id("work", "plan.ß"),
        coordinate=coordinate_of("plan.ß"),
        created_at=answer.created_at,
        updated_at=answer.created_at,
        version=1,
    )
    assert expected == full
    assert replace(expected, embedding=None) == basic
    assert basic == answer


async def test_a_new_memory_is_created_in_its_first_version(truth: Truth, tenant: Tenant) -> None:
    (answer,) = await truth.journal.write(tenant, [remember("tea")])
    got = written(answer)
    assert (1, True, True, 1) == (got.memory.version if got.memory else 0, got.created, got.changed, got.revision)


async def test_the_same_content_again_changes_nothing(truth: Truth, tenant: Tenant) -> None:
    command = remember("tea", tags=("hot",), importance=0.5)
    (first,) = await truth.journal.write(tenant, [command])
    (again,) = await truth.journal.write(tenant, [command])
    assert replace(written(first), created=False, changed=False) == written(again)


async def test_other_content_is_the_next_version_of_the_same_memory(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    (second,) = await stored(truth, tenant, remember("coffee", key="drink"))
    assert (first.memory_id, 2, first.created_at) == (second.memory_id, second.version, second.created_at)
    assert second == await read(truth, tenant, first.memory_id)


async def test_if_absent_refuses_a_memory_that_is_there(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    (refused,) = await truth.journal.write(tenant, [remember("coffee", key="drink", if_absent=True)])
    assert isinstance(refused, MemoryExistsError)
    assert {"memory_id": first.memory_id, "version": "1"} == refused.metadata
    assert first == await read(truth, tenant, first.memory_id)


async def test_if_match_lets_only_the_named_version_be_replaced(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    (taken,) = await truth.journal.write(tenant, [remember("coffee", key="drink", if_match=1)])
    (refused,) = await truth.journal.write(tenant, [remember("water", key="drink", if_match=1)])
    (unknown,) = await truth.journal.write(tenant, [remember("water", key="other", if_match=1)])
    assert written(taken).changed
    assert isinstance(refused, VersionMismatchError)
    assert {"memory_id": first.memory_id, "expected": "1", "actual": "2"} == refused.metadata
    assert isinstance(unknown, VersionMismatchError)
    assert "0" == unknown.metadata["actual"]


# --- repeated requests


async def test_a_repeated_request_gets_the_first_answer(truth: Truth, tenant: Tenant) -> None:
    commands: list[Command] = [
        remember("tea", key="drink", request_id="r-1"),
        Update(Target(key="drink"), Memory(importance=0.5), ("importance",), request_id="r-2"),
        Forget(Target(key="drink"), request_id="r-3"),
    ]
    first = [(await truth.journal.write(tenant, [command]))[0] for command in commands]
    await stored(truth, tenant, remember("coffee", key="drink"))
    again = [(await truth.journal.write(tenant, [command]))[0] for command in commands]
    assert first == again
    (current,) = await truth.journal.get(tenant, [Target(key="drink")])
    assert current is not None
    assert "coffee" == current.text


async def test_a_repeated_request_with_a_new_made_up_id_makes_no_second_memory(truth: Truth, tenant: Tenant) -> None:
    request_id = new_memory_id()
    (first,) = await truth.journal.write(tenant, [remember("tea", request_id=request_id)])
    (again,) = await truth.journal.write(tenant, [remember("tea", request_id=request_id)])
    assert first == again
    assert 1 == await truth.journal.revision(tenant)


async def test_a_repetition_within_one_call_is_answered_once(truth: Truth, tenant: Tenant) -> None:
    command = remember("tea", request_id="r-1")
    first, again = await truth.journal.write(tenant, [command, command])
    assert first == again
    assert 1 == await truth.journal.revision(tenant)


@pytest.mark.parametrize(
    "other",
    [
        remember("coffee", key="drink", request_id="r-1"),
        remember("tea", key="drink", if_absent=True, request_id="r-1"),
        remember("tea", key="drink", ttl_s=5.0, request_id="r-1"),
        Forget(Target(key="drink"), request_id="r-1"),
        Update(Target(key="drink"), Memory(text="tea"), ("text",), request_id="r-1"),
    ],
)
async def test_a_request_id_is_refused_for_another_request(truth: Truth, tenant: Tenant, other: Command) -> None:
    await stored(truth, tenant, remember("tea", key="drink", request_id="r-1"))
    (refused,) = await truth.journal.write(tenant, [other])
    assert isinstance(refused, RequestIdReusedError)
    assert 1 == await truth.journal.revision(tenant)


async def test_a_refused_request_may_be_repeated_until_it_succeeds(truth: Truth, tenant: Tenant) -> None:
    update = Update(Target(key="drink"), Memory(importance=0.5), ("importance",), request_id="r-1")
    (refused,) = await truth.journal.write(tenant, [update])
    await stored(truth, tenant, remember("tea", key="drink"))
    (taken,) = await truth.journal.write(tenant, [update])
    assert isinstance(refused, MemoryNotFoundError)
    assert 2 == written(taken).revision


async def test_a_request_that_changed_nothing_is_also_answered_as_before(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="drink"))
    (first,) = await truth.journal.write(tenant, [remember("tea", key="drink", request_id="r-1")])
    await stored(truth, tenant, remember("coffee", key="drink"))
    (again,) = await truth.journal.write(tenant, [remember("tea", key="drink", request_id="r-1")])
    assert first == again
    assert not written(again).changed


async def test_request_ids_of_two_tenants_are_strangers(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="drink", request_id="r-1"))
    (other,) = await truth.journal.write(stranger, [remember("coffee", key="drink", request_id="r-1")])
    assert written(other).created


# --- keys and coordinates


async def test_a_key_names_one_memory_of_a_namespace(truth: Truth, tenant: Tenant) -> None:
    here, there = await stored(
        truth, tenant, remember("tea", key="drink"), remember("wine", key="drink", namespace="evening")
    )
    targets = [Target(key="drink"), Target(key="drink", namespace="evening"), Target(key="food")]
    assert [here, there, None] == await truth.journal.get(tenant, targets)


async def test_a_coordinate_finds_the_memory_of_its_key(truth: Truth, tenant: Tenant) -> None:
    keyed, free = await stored(truth, tenant, remember("tea", key="drink"), remember("no key"))
    targets = [
        Target(coordinate=coordinate_of("drink")),
        Target(coordinate=coordinate_of(free.memory_id)),
        Target(coordinate=coordinate_of("drink"), namespace="other"),
    ]
    assert [keyed, free, None] == await truth.journal.get(tenant, targets)


async def test_a_memory_with_its_own_id_may_take_a_free_key(truth: Truth, tenant: Tenant) -> None:
    own = new_memory_id()
    (first,) = await stored(truth, tenant, remember("tea", memory_id=own, key="drink"))
    (by_key,) = await stored(truth, tenant, remember("coffee", key="drink"))
    assert (own, own, 2) == (first.memory_id, by_key.memory_id, by_key.version)


async def test_a_key_is_taken_while_another_id_holds_it(truth: Truth, tenant: Tenant) -> None:
    (holder,) = await stored(truth, tenant, remember("tea", key="drink"))
    own = new_memory_id()
    (refused,) = await truth.journal.write(tenant, [remember("coffee", memory_id=own, key="drink")])
    assert isinstance(refused, KeyTakenError)
    assert {"key": "drink", "namespace": "default", "memory_id": holder.memory_id} == refused.metadata
    await truth.journal.write(tenant, [Forget(Target(key="drink"))])
    (taken,) = await truth.journal.write(tenant, [remember("coffee", memory_id=own, key="drink")])
    assert written(taken).created


async def test_a_key_given_up_can_be_taken_by_another_memory(truth: Truth, tenant: Tenant) -> None:
    own, other = new_memory_id(), new_memory_id()
    await stored(truth, tenant, remember("tea", memory_id=own, key="drink"))
    await stored(truth, tenant, remember("tea", memory_id=own))
    (taken,) = await truth.journal.write(tenant, [remember("coffee", memory_id=other, key="drink")])
    (found,) = await truth.journal.get(tenant, [Target(key="drink")])
    assert written(taken).memory == found


async def test_a_renamed_memory_is_left_alone_by_its_old_key(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    await truth.journal.write(tenant, [Update(Target(key="drink"), Memory(key="beverage"), ("key",))])
    (second,) = await stored(truth, tenant, remember("coffee", key="drink"))
    found = await truth.journal.get(tenant, [Target(key="beverage"), Target(key="drink")])
    assert ["tea", "coffee"] == [memory.text for memory in found if memory]
    assert first.memory_id != second.memory_id


async def test_an_expired_memory_gives_its_key_free(truth: Truth, tenant: Tenant) -> None:
    (old,) = await stored(truth, tenant, remember("tea", memory_id=new_memory_id(), key="drink", ttl_s=60.0))
    await truth.pass_time(61)
    (fresh,) = await truth.journal.write(tenant, [remember("coffee", memory_id=new_memory_id(), key="drink")])
    assert written(fresh).created
    assert await read(truth, tenant, old.memory_id) is None


# --- updating


async def test_an_update_replaces_the_masked_fields_only(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink", tags=("hot",), payload_json='{"a": 1}'))
    change = Memory(text="ignored", tags=("cold", "iced"), importance=0.9)
    (answer,) = await truth.journal.write(tenant, [Update(Target(key="drink"), change, ("tags", "importance"))])
    memory = written(answer).memory
    assert memory is not None
    expected = replace(first, tags=("cold", "iced"), importance=0.9, version=2, updated_at=memory.updated_at)
    assert expected == memory == await read(truth, tenant, first.memory_id)


async def test_an_update_to_what_is_there_changes_nothing(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink", importance=0.5))
    update = Update(Target(key="drink"), Memory(importance=0.5), ("importance",))
    (answer,) = await truth.journal.write(tenant, [update])
    assert (False, first) == (written(answer).changed, written(answer).memory)


@pytest.mark.parametrize(
    "target", [Target(key="drink"), Target(memory_id=new_memory_id()), Target(coordinate=(0.5, 0.5, 0.5))]
)
async def test_an_update_of_nothing_is_not_found(truth: Truth, tenant: Tenant, target: Target) -> None:
    update, forget = Update(target, Memory(text="tea"), ("text",)), Forget(target)
    answers = await truth.journal.write(tenant, [update, forget])
    assert [MemoryNotFoundError, MemoryNotFoundError] == [type(answer) for answer in answers]


async def test_an_update_may_demand_a_version(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    update = Update(Target(key="drink"), Memory(text="coffee"), ("text",), if_match=2)
    (refused,) = await truth.journal.write(tenant, [update])
    (taken,) = await truth.journal.write(tenant, [replace(update, if_match=1)])
    assert isinstance(refused, VersionMismatchError)
    assert {"memory_id": first.memory_id, "expected": "2", "actual": "1"} == refused.metadata
    assert written(taken).changed


async def test_an_update_of_the_key_moves_the_coordinate_and_not_the_id(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    (answer,) = await truth.journal.write(tenant, [Update(Target(key="drink"), Memory(key="beverage"), ("key",))])
    memory = written(answer).memory
    assert memory is not None
    assert (first.memory_id, coordinate_of("beverage")) == (memory.memory_id, memory.coordinate)
    assert [None, memory] == await truth.journal.get(tenant, [Target(key="drink"), Target(key="beverage")])


async def test_an_update_cannot_take_the_key_of_another_memory(truth: Truth, tenant: Tenant) -> None:
    _, food = await stored(truth, tenant, remember("tea", key="drink"), remember("cake", key="food"))
    (refused,) = await truth.journal.write(tenant, [Update(Target(key="drink"), Memory(key="food"), ("key",))])
    assert isinstance(refused, KeyTakenError)
    assert food.memory_id == refused.metadata["memory_id"]


@pytest.mark.parametrize("mask", [("key",), ("namespace",), ("namespace", "key")])
async def test_a_key_is_taken_in_the_namespace_a_memory_moves_to(
    truth: Truth, tenant: Tenant, mask: tuple[str, ...]
) -> None:
    old = {"namespace": "there" if mask == ("key",) else "here", "key": "food" if mask == ("namespace",) else "drink"}
    mover, holder = await stored(truth, tenant, remember("tea", **old), remember("cake", namespace="there", key="food"))
    change = Memory(namespace="there", key="food")
    (refused,) = await truth.journal.write(tenant, [Update(Target(memory_id=mover.memory_id), change, mask)])
    assert isinstance(refused, KeyTakenError)
    assert {"key": "food", "namespace": "there", "memory_id": holder.memory_id} == refused.metadata


async def test_an_update_of_an_unknown_field_names_it(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="drink"))
    (refused,) = await truth.journal.write(tenant, [Update(Target(key="drink"), Memory(), ("version",))])
    assert isinstance(refused, FieldViolationError)
    assert "update_mask" == refused.violations[0].field


# --- forgetting


@pytest.mark.parametrize("by", ["memory_id", "key", "coordinate"])
async def test_a_forgotten_memory_is_found_by_nothing(truth: Truth, tenant: Tenant, by: str) -> None:
    (memory,) = await stored(truth, tenant, remember("tea", key="drink"))
    (answer,) = await truth.journal.write(tenant, [Forget(Target(**{by: getattr(memory, by)}))])
    assert (None, 2, True) == (written(answer).memory, written(answer).revision, written(answer).changed)
    targets = [Target(memory_id=memory.memory_id), Target(key="drink"), Target(coordinate=memory.coordinate)]
    assert [None, None, None] == await truth.journal.get(tenant, targets)
    assert [None] == await truth.journal.get(tenant, [targets[0]], as_of=memory.updated_at)
    assert [] == await truth.journal.history(tenant, memory.memory_id, before_version=None, limit=10)


async def test_forgetting_what_is_not_there_can_be_allowed(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea"))
    (answer,) = await truth.journal.write(tenant, [Forget(Target(key="drink"), allow_missing=True)])
    assert (None, 1, False) == (written(answer).memory, written(answer).revision, written(answer).changed)


async def test_forgetting_may_demand_a_version(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="drink"))
    (refused,) = await truth.journal.write(tenant, [Forget(Target(key="drink"), if_match=3)])
    (taken,) = await truth.journal.write(tenant, [Forget(Target(key="drink"), if_match=1)])
    assert isinstance(refused, VersionMismatchError)
    assert written(taken).changed


async def test_a_memory_remembered_anew_has_no_past(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("tea", key="drink"))
    await stored(truth, tenant, remember("secret", key="drink"))
    await truth.journal.write(tenant, [Forget(Target(key="drink"))])
    (answer,) = await truth.journal.write(tenant, [remember("coffee", key="drink")])
    memory = written(answer).memory
    assert memory is not None
    assert (True, 4) == (written(answer).created, memory.version)
    assert [memory] == await truth.journal.history(tenant, first.memory_id, before_version=None, limit=10)
    assert [None] == await truth.journal.get(tenant, [Target(key="drink")], as_of=first.updated_at)


# --- time to live


async def test_an_expired_memory_is_gone_for_every_reader(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("tea", key="drink", ttl_s=60.0))
    await truth.pass_time(59)
    assert await read(truth, tenant, memory.memory_id) is not None
    await truth.pass_time(2)
    assert await read(truth, tenant, memory.memory_id) is None
    assert [None] == await truth.journal.get(tenant, [Target(key="drink")], as_of=memory.updated_at)
    assert [] == await truth.journal.history(tenant, memory.memory_id, before_version=None, limit=10)
    (update,) = await truth.journal.write(tenant, [Update(Target(key="drink"), Memory(text="x"), ("text",))])
    assert isinstance(update, MemoryNotFoundError)


async def test_a_time_to_live_counts_from_the_commit(truth: Truth, tenant: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("tea", ttl_s=90.5))
    assert memory.updated_at is not None
    assert memory.updated_at + timedelta(seconds=90.5) == memory.expires_at


async def test_remembering_an_expired_memory_creates_it(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("tea", key="drink", ttl_s=60.0))
    await truth.pass_time(61)
    (answer,) = await truth.journal.write(tenant, [remember("tea", key="drink", if_absent=True)])
    memory = written(answer).memory
    assert memory is not None
    assert (True, 2, None) == (written(answer).created, memory.version, memory.expires_at)
    assert [memory] == await truth.journal.history(tenant, memory.memory_id, before_version=None, limit=10)


# --- origins


def origin(second: int, brain_id: str = "brain-a") -> Origin:
    return Origin(brain_id, datetime(2025, 1, 1, 0, 0, second, tzinfo=UTC))


async def test_a_write_older_than_the_last_one_of_another_brain_is_dropped(truth: Truth, tenant: Tenant) -> None:
    write = truth.journal.write
    (kept,) = await write(tenant, [remember("later", key="k")], origin=origin(2, "brain-b"))
    (dropped,) = await write(tenant, [remember("earlier", key="k")], origin=origin(1))
    (newer,) = await write(tenant, [remember("newest", key="k")], origin=origin(3))
    assert (written(kept).memory, False, ("SUPERSEDED",)) == (
        written(dropped).memory,
        written(dropped).changed,
        written(dropped).warnings,
    )
    assert 2 == written(newer).revision


async def test_two_brains_replays_end_alike_in_any_order(truth: Truth, tenant: Tenant) -> None:
    writes = [
        (remember("a", key="k"), origin(1)),
        (remember("b", key="k"), origin(2, "brain-b")),
        (remember("c", key="k"), origin(3)),
        (remember("d", key="k"), origin(3, "brain-b")),
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2]):
        key = "".join(map(str, order))
        for place in order:
            command, at = writes[place]
            await truth.journal.write(tenant, [remember(command.memory.text, key=key)], origin=at)
        (memory,) = await truth.journal.get(tenant, [Target(key=key)])
        assert memory is not None
        assert "d" == memory.text


async def test_a_late_write_does_not_revive_what_was_forgotten_since(truth: Truth, tenant: Tenant) -> None:
    await truth.journal.write(tenant, [remember("tea", key="k")], origin=origin(1))
    await truth.journal.write(tenant, [Forget(Target(key="k"))], origin=origin(3))
    (late,) = await truth.journal.write(tenant, [remember("late", key="k")], origin=origin(2))
    assert (None, False) == (written(late).memory, written(late).changed)
    assert [None] == await truth.journal.get(tenant, [Target(key="k")])


# --- many commands in a call


async def test_commands_of_a_call_are_answered_each_for_itself(truth: Truth, tenant: Tenant) -> None:
    again = remember("a", key="a", if_absent=True)
    answers = await truth.journal.write(
        tenant, [remember("a", key="a"), Forget(Target(key="none")), remember("b", key="b"), again]
    )
    kinds = [type(answer).__name__ for answer in answers]
    assert ["Written", "MemoryNotFoundError", "Written", "MemoryExistsError"] == kinds
    assert [1, 2] == [answer.revision for answer in answers if not isinstance(answer, Exception)]


async def test_an_atomic_call_with_a_refusal_leaves_nothing_behind(truth: Truth, tenant: Tenant) -> None:
    await stored(truth, tenant, remember("old", key="a"))
    commands: list[Command] = [
        remember("new", key="a", request_id="r-1"),
        remember("b", key="b"),
        Forget(Target(key="none")),
        remember("c", key="c"),
    ]
    with pytest.raises(MemoryNotFoundError):
        await truth.journal.write(tenant, commands, atomic=True)
    found = await truth.journal.get(tenant, [Target(key=key) for key in "abc"])
    assert ["old", None, None] == [memory.text if memory else None for memory in found]
    assert 1 == await truth.journal.revision(tenant)
    (retried,) = await truth.journal.write(tenant, commands[:1])
    assert written(retried).changed


async def test_an_atomic_call_without_a_refusal_is_taken_whole(truth: Truth, tenant: Tenant) -> None:
    answers = await truth.journal.write(tenant, [remember("a", key="a"), remember("b", key="b")], atomic=True)
    assert [1, 2] == [written(answer).revision for answer in answers]


async def test_commands_on_one_memory_take_effect_in_order(truth: Truth, tenant: Tenant) -> None:
    answers = await truth.journal.write(
        tenant,
        [
            remember("one", key="k"),
            remember("two", key="k"),
            Update(Target(key="k"), Memory(importance=0.5), ("importance",)),
            remember("two", key="k", importance=0.5),
            Forget(Target(key="k")),
            remember("three", key="k"),
            remember("four", key="k"),
        ],
    )
    versions = [answer.memory.version if answer.memory else None for answer in map(written, answers)]
    assert [1, 2, 3, 3, None, 5, 6] == versions
    assert [1, 2, 3, 3, 4, 5, 6] == [written(answer).revision for answer in answers]
    memory = written(answers[-1]).memory
    assert memory is not None
    history = await truth.journal.history(tenant, memory.memory_id, before_version=None, limit=10)
    assert ["four", "three"] == [version.text for version in history]


async def test_what_came_and_went_within_a_call_is_in_the_history(truth: Truth, tenant: Tenant) -> None:
    (first,) = await stored(truth, tenant, remember("one", key="k"))
    await stored(truth, tenant, remember("two", key="k"), remember("three", key="k"))
    history = await truth.journal.history(tenant, first.memory_id, before_version=None, limit=10)
    assert [("three", 3), ("two", 2), ("one", 1)] == [(version.text, version.version) for version in history]


async def test_a_call_without_commands_does_nothing(truth: Truth, tenant: Tenant) -> None:
    assert [] == await truth.journal.write(tenant, [])
    assert [] == await truth.journal.get(tenant, [])
    assert 0 == await truth.journal.revision(tenant)


# --- concurrency and deadlines


async def test_concurrent_writes_of_a_tenant_get_revisions_without_gaps(truth: Truth, tenant: Tenant) -> None:
    async def write(number: int) -> int:
        (answer,) = await truth.journal.write(tenant, [remember(f"note {number}")])
        return written(answer).revision

    revisions = await asyncio.gather(*(write(number) for number in range(100)))
    assert list(range(1, 101)) == sorted(revisions)
    assert 100 == await truth.journal.revision(tenant)


async def test_concurrent_writes_of_one_memory_make_contiguous_versions(truth: Truth, tenant: Tenant) -> None:
    async def write(number: int) -> int:
        (answer,) = await truth.journal.write(tenant, [remember(f"note {number}", key="counter")])
        memory = written(answer).memory
        return memory.version if memory else 0

    versions = await asyncio.gather(*(write(number) for number in range(50)))
    assert list(range(1, 51)) == sorted(versions)


async def test_concurrent_repetitions_of_a_request_take_effect_once(truth: Truth, tenant: Tenant) -> None:
    request_id = new_memory_id()
    answers = await asyncio.gather(
        *(truth.journal.write(tenant, [remember("tea", request_id=request_id)]) for _ in range(20))
    )
    assert 1 == len({repr(answer) for answer in answers})
    assert 1 == await truth.journal.revision(tenant)


async def test_a_spent_budget_is_told_and_nothing_is_written(truth: Truth, tenant: Tenant) -> None:
    with pytest.raises(BudgetSpentError):
        await truth.journal.write(tenant, [remember("tea")], deadline_s=0.0)
    assert 0 == await truth.journal.revision(tenant)


# --- tenants


async def test_a_memory_of_another_tenant_does_not_exist(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    (memory,) = await stored(truth, tenant, remember("secret", key="k"))
    targets = [Target(memory_id=memory.memory_id), Target(key="k"), Target(coordinate=memory.coordinate)]
    assert [None, None, None] == await truth.journal.get(stranger, targets)
    assert [] == await truth.journal.history(stranger, memory.memory_id, before_version=None, limit=10)
    answers = await truth.journal.write(
        stranger, [Forget(targets[0]), Update(targets[1], Memory(text="x"), ("text",)), Forget(targets[2])]
    )
    assert [MemoryNotFoundError] * 3 == [type(answer) for answer in answers]
    assert 0 == await truth.journal.revision(stranger)
    assert memory == await read(truth, tenant, memory.memory_id)


async def test_two_tenants_may_use_the_same_id(truth: Truth, tenant: Tenant, stranger: Tenant) -> None:
    own = new_memory_id()
    (mine,) = await stored(truth, tenant, remember("mine", memory_id=own))
    (theirs,) = await stored(truth, stranger, remember("theirs", memory_id=own))
    assert (mine, theirs) == (await read(truth, tenant, own), await read(truth, stranger, own))

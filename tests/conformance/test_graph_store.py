"""The GraphStore port: what every store of links does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from memory_server.ports import Step
from soma_contract.errors import (
    FieldViolationError,
    LinkNotFoundError,
    MemoryNotFoundError,
    RequestIdReusedError,
    SomaError,
    VersionMismatchError,
)
from soma_contract.links import (
    CO_RECALLED,
    FAN_OUT,
    REFERENCES,
    USED_IN_PLAN,
    Direction,
    LinkKey,
    MakeLink,
    Reach,
    Refer,
    RemoveLink,
    UseTogether,
)
from soma_contract.memory import Forget, Memory, Origin, Remember, Target
from tests.conformance.graph_stores import ACME, GLOBEX, Graph, ends, graph, graph_database, ids, named

__all__ = ["graph", "graph_database"]

A, B, C, D = ids(4)
SOON = timedelta(hours=1)
OUTGOING = Reach(Direction.OUTGOING)


async def outgoing(graph: Graph, memory_id: str, reach: Reach = OUTGOING) -> list[Step]:
    return list((await graph.store.expand(ACME, [memory_id], reach, each=100, limit=100)).steps)


async def test_a_link_is_made_read_and_counted_in_the_tenants_revision(graph: Graph) -> None:
    await graph.remember(A, B)
    before = await graph.journal.revision(ACME)
    written = await graph.write(MakeLink(named(A), named(B), "supports", 0.5, '{"why":"said so"}'))
    (read,) = await graph.store.links(ACME, [LinkKey(A, "supports", B)])
    assert (before + 1, True, True, 1) == (
        written.revision,
        written.created,
        written.changed,
        written.link and written.link.version,
    )
    assert written.link == read
    assert await graph.journal.revision(ACME) == written.revision


async def test_the_same_link_again_changes_nothing_and_another_strength_makes_a_version(graph: Graph) -> None:
    await graph.remember(A, B)
    first = await graph.write(MakeLink(named(A), named(B)))
    again = await graph.write(MakeLink(named(A), named(B)))
    weaker = await graph.write(MakeLink(named(A), named(B), strength=0.25))
    assert (first.link, False, first.revision) == (again.link, again.changed, again.revision)
    assert weaker.link is not None
    assert (2, 0.25, False) == (weaker.link.version, weaker.link.strength, weaker.created)


async def test_ends_are_found_by_key_and_coordinate_too(graph: Graph) -> None:
    answers = await graph.journal.write(
        ACME, [Remember(Memory(key="user.name", text="Ada")), Remember(Memory(key="user.city", text="London"))]
    )
    name, city = (answer.memory for answer in answers if not isinstance(answer, SomaError))
    assert name is not None
    assert city is not None
    written = await graph.write(MakeLink(Target(key="user.name"), Target(coordinate=city.coordinate)))
    assert written.link is not None
    assert (name.memory_id, city.memory_id) == (written.link.source_id, written.link.target_id)
    assert [name.memory_id, None, city.memory_id] == await graph.store.resolve(
        ACME, [Target(key="user.name"), Target(key="user.age"), Target(coordinate=city.coordinate)]
    )


@pytest.mark.parametrize(
    ("command", "field"),
    [(MakeLink(named(C), named(A)), "source"), (MakeLink(named(A), named(C)), "target")],
)
async def test_a_dangling_end_is_refused_by_name(graph: Graph, command: MakeLink, field: str) -> None:
    await graph.remember(A)
    with pytest.raises(MemoryNotFoundError) as refused:
        await graph.write(command)
    assert {"memory_id": C, "field": field} == refused.value.metadata


async def test_a_self_link_is_refused_however_its_ends_are_named(graph: Graph) -> None:
    (answer,) = await graph.journal.write(ACME, [Remember(Memory(key="me", text="me"))])
    assert not isinstance(answer, SomaError)
    assert answer.memory is not None
    with pytest.raises(FieldViolationError) as refused:
        await graph.write(MakeLink(Target(key="me"), named(answer.memory.memory_id)))
    assert ["target"] == [violation.field for violation in refused.value.violations]


async def test_a_refusal_leaves_the_other_commands_of_the_call_alone(graph: Graph) -> None:
    await graph.remember(A, B)
    refused, made = await graph.store.write(ACME, [MakeLink(named(A), named(C)), MakeLink(named(A), named(B))])
    assert isinstance(refused, MemoryNotFoundError)
    assert not isinstance(made, SomaError)
    assert [B] == [step.reached for step in await outgoing(graph, A)]


async def test_a_version_condition_decides(graph: Graph) -> None:
    await graph.remember(A, B)
    await graph.write(MakeLink(named(A), named(B), if_match=0))
    with pytest.raises(VersionMismatchError) as refused:
        await graph.write(MakeLink(named(A), named(B), strength=0.5, if_match=0))
    assert ("0", "1") == (refused.value.metadata["expected"], refused.value.metadata["actual"])
    changed = await graph.write(MakeLink(named(A), named(B), strength=0.5, if_match=1))
    with pytest.raises(VersionMismatchError):
        await graph.write(RemoveLink(named(A), named(B), if_match=1))
    assert changed.link is not None
    assert changed.link.version == 2


async def test_a_removed_link_is_gone_and_removing_it_again_says_so(graph: Graph) -> None:
    await graph.remember(A, B)
    await graph.link(A, B)
    await graph.write(RemoveLink(named(A), named(B)))
    with pytest.raises(LinkNotFoundError) as refused:
        await graph.write(RemoveLink(named(A), named(B)))
    assert {"source_id": A, "target_id": B, "relation": "related"} == refused.value.metadata
    assert not (await graph.write(RemoveLink(named(A), named(B), allow_missing=True))).changed
    assert [] == await outgoing(graph, A)


async def test_a_repeated_request_gets_the_first_answer_and_another_one_is_refused(graph: Graph) -> None:
    await graph.remember(A, B)
    command = MakeLink(named(A), named(B), strength=0.5, request_id="r1")
    first = await graph.write(command)
    await graph.write(MakeLink(named(A), named(B), strength=0.9))
    again = await graph.write(command)
    assert (first.link, first.revision, first.created) == (again.link, again.revision, again.created)
    assert again.repeated
    with pytest.raises(RequestIdReusedError):
        await graph.write(MakeLink(named(A), named(B), strength=0.7, request_id="r1"))
    assert [0.9] == [step.strength for step in await outgoing(graph, A)]


async def test_a_request_id_of_a_memory_is_not_taken_for_a_link(graph: Graph) -> None:
    await graph.remember(A, B)
    await graph.journal.write(ACME, [Remember(Memory(text="x"), request_id="shared")])
    with pytest.raises(RequestIdReusedError):
        await graph.write(MakeLink(named(A), named(B), request_id="shared"))
    assert {"shared"} == await graph.store.answered(ACME, ["shared", "other"])


async def test_links_go_with_either_of_their_ends(graph: Graph) -> None:
    await graph.remember(A, B, C)
    await graph.link(A, B)
    await graph.link(C, A)
    await graph.journal.write(ACME, [Forget(named(A))])
    await graph.remember(A)
    assert [None, None] == await graph.store.links(ACME, [LinkKey(A, "related", B), LinkKey(C, "related", A)])


async def test_an_expired_end_hides_its_links(graph: Graph) -> None:
    await graph.remember(A)
    await graph.journal.write(ACME, [Remember(Memory(memory_id=B, text="b"), ttl_s=0.25)])
    await graph.link(A, B)
    assert [B] == [step.reached for step in await outgoing(graph, A)]
    async with asyncio.timeout(10):
        while await graph.store.resolve(ACME, [named(B)]) != [None]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [] == await outgoing(graph, A)
    assert [] == await graph.store.page(ACME, A, Reach(), at=datetime.now(UTC), after=None, limit=10)


async def test_a_link_is_seen_while_it_is_valid(graph: Graph) -> None:
    await graph.remember(A, B, C, D)
    now = datetime.now(UTC)
    await graph.write(MakeLink(named(A), named(B), valid_from=now + SOON))
    await graph.write(MakeLink(named(A), named(C), valid_until=now - SOON))
    await graph.write(MakeLink(named(A), named(D), valid_from=now - SOON, valid_until=now + SOON))
    page = await graph.store.page(ACME, A, Reach(), at=now, after=None, limit=10)
    among = await graph.store.among(ACME, [A, B, C, D], Reach(), limit=10)
    assert [D] == [step.reached for step in await outgoing(graph, A)]
    assert [D] == [link.target_id for link in page]
    assert [D] == [step.reached for step in among.steps]


async def test_steps_come_strongest_first_and_only_those_asked_for(graph: Graph) -> None:
    await graph.remember(A, B, C, D)
    await graph.link(A, B, "related", 0.5)
    await graph.link(A, C, "supports", 0.9)
    await graph.link(D, A, "related", 0.7)
    both = await outgoing(graph, A, Reach())
    assert [(C, True), (D, False), (B, True)] == [(step.reached, step.outgoing) for step in both]
    assert [D] == [step.reached for step in await outgoing(graph, A, Reach(Direction.INCOMING))]
    assert [D, B] == [step.reached for step in await outgoing(graph, A, Reach(relations=("related",)))]
    assert [C, D] == [step.reached for step in await outgoing(graph, A, Reach(min_strength=0.6))]


async def test_an_expansion_serves_the_first_memories_first_and_says_when_it_was_cut(graph: Graph) -> None:
    await graph.remember(A, B, C, D)
    for target, strength in ((B, 0.9), (C, 0.8), (D, 0.7)):
        await graph.link(A, target, strength=strength)
    reach = Reach(Direction.OUTGOING)
    each = await graph.store.expand(ACME, [A], reach, each=2, limit=10)
    whole = await graph.store.expand(ACME, [A], reach, each=3, limit=3)
    both = await graph.store.expand(ACME, [B, A], Reach(), each=3, limit=2)
    assert ([B, C], True) == ([step.reached for step in each.steps], each.cut)
    assert ([B, C, D], False) == ([step.reached for step in whole.steps], whole.cut)
    assert ([(B, A), (A, B)], True) == ([(step.came_from, step.reached) for step in both.steps], both.cut)


async def test_links_among_memories_have_both_ends_there(graph: Graph) -> None:
    await graph.remember(A, B, C, D)
    for source, target in ((A, B), (B, C), (C, D)):
        await graph.link(source, target)
    found = await graph.store.among(ACME, [A, B, C], Reach(), limit=10)
    cut = await graph.store.among(ACME, [A, B, C], Reach(), limit=1)
    assert {(A, B), (B, C)} == {(step.came_from, step.reached) for step in found.steps}
    assert (False, True, 1) == (found.cut, cut.cut, len(cut.steps))


async def test_pages_join_into_the_whole_list_strongest_first(graph: Graph) -> None:
    others = ids(12)
    hub, rest = others[0], others[1:]
    await graph.remember(*others)
    for number, other in enumerate(rest):
        relation = ("related", CO_RECALLED, "supports")[number % 3]
        ends_of = (hub, other) if number % 2 else (other, hub)
        await graph.link(*ends_of, relation, (0.5, 0.5, 0.9, 0.25)[number % 4])
        await graph.link(hub, other, "twice", 0.5)
    at = datetime.now(UTC)
    whole = await graph.store.page(ACME, hub, Reach(), at=at, after=None, limit=100)
    joined = []
    page = await graph.store.page(ACME, hub, Reach(), at=at, after=None, limit=3)
    while page:
        joined += page
        page = await graph.store.page(ACME, hub, Reach(), at=at, after=page[-1], limit=3)
    assert len(rest) * 2 == len(whole)
    assert ends(whole) == ends(joined)
    assert sorted((link.strength for link in whole), reverse=True) == [link.strength for link in whole]


# --- what use does -------------------------------------------------------------------------------


async def test_memories_used_together_are_linked_and_each_use_adds_a_tenth_of_the_rest(graph: Graph) -> None:
    await graph.remember(A, B, C)
    first = await graph.write(UseTogether((B, A, C, D)))
    (once,) = await graph.store.links(ACME, [LinkKey(A, CO_RECALLED, B)])
    await graph.write(UseTogether((A, B)))
    (twice,) = await graph.store.links(ACME, [LinkKey(A, CO_RECALLED, B)])
    assert (1, True) == (first.unknown, first.changed)
    assert once is not None
    assert twice is not None
    assert [0.1, 0.19] == pytest.approx([once.strength, twice.strength])
    assert twice.version == 2
    among = await graph.store.among(ACME, [A, B, C], Reach(), limit=10)
    assert {(A, B), (A, C), (B, C)} == {(step.came_from, step.reached) for step in among.steps}


async def test_a_plan_is_named_on_the_links_of_its_memories(graph: Graph) -> None:
    await graph.remember(A, B)
    await graph.write(UseTogether((A, B), plan_id="move house"))
    await graph.write(UseTogether((A, B), plan_id="paint"))
    await graph.write(UseTogether((A, B), plan_id="move house"))
    (link,) = await graph.store.links(ACME, [LinkKey(A, USED_IN_PLAN, B)])
    assert link is not None
    assert ('{"plan_ids":["paint","move house"]}', 3) == (link.metadata_json, link.version)


async def test_a_memory_keeps_its_strongest_co_recalled_links(graph: Graph) -> None:
    hub, *rest = ids(FAN_OUT + 3)
    await graph.remember(hub, *rest)
    for other in rest[1:]:
        await graph.write(UseTogether((hub, other)))
        await graph.write(UseTogether((hub, other)))
    await graph.write(UseTogether((hub, rest[0])))
    steps = await outgoing(graph, hub, Reach(relations=(CO_RECALLED,)))
    assert FAN_OUT == len(steps)
    assert rest[0] not in {step.reached for step in steps}


async def test_a_payloads_references_are_made_and_unmade_and_callers_links_stay(graph: Graph) -> None:
    await graph.remember(A, B, C, D)
    await graph.link(A, D, REFERENCES, 0.5)
    made = await graph.write(Refer(A, (named(B), named(D), Target(key="nobody"))))
    again = await graph.write(Refer(A, (named(B), named(D), Target(key="nobody"))))
    await graph.write(Refer(A, (named(C),)))
    assert (True, 1, False) == (made.changed, made.unknown, again.changed)
    assert [(C, 1.0), (D, 0.5)] == [(step.reached, step.strength) for step in await outgoing(graph, A)]


async def test_a_link_set_later_elsewhere_is_not_overwritten_by_a_late_delivery(graph: Graph) -> None:
    await graph.remember(A, B)
    now = datetime.now(UTC)
    await graph.store.write(ACME, [MakeLink(named(A), named(B), strength=0.9)], origin=Origin("brain-2", now))
    (late,) = await graph.store.write(
        ACME, [MakeLink(named(A), named(B), strength=0.1)], origin=Origin("brain-1", now - SOON)
    )
    assert not isinstance(late, SomaError)
    assert (False, 0.9) == (late.changed, late.link and late.link.strength)


# --- tenants and company -------------------------------------------------------------------------


async def test_another_tenant_neither_sees_nor_links_nor_removes(graph: Graph) -> None:
    await graph.remember(A, B)
    await graph.link(A, B)
    await graph.remember(C, tenant=GLOBEX)
    foreign = await graph.store.write(
        GLOBEX,
        [
            MakeLink(named(C), named(A)),
            MakeLink(named(C), named(D)),
            RemoveLink(named(A), named(B)),
            Refer(C, (named(A),)),
        ],
    )
    assert [MemoryNotFoundError, MemoryNotFoundError, LinkNotFoundError] == [type(answer) for answer in foreign[:3]]
    there, absent = foreign[:2]
    assert isinstance(there, SomaError)
    assert isinstance(absent, SomaError)
    assert there.message == absent.message
    assert [] == list((await graph.store.expand(GLOBEX, [A, B, C], Reach(), each=9, limit=9)).steps)
    assert [] == list((await graph.store.among(GLOBEX, [A, B, C], Reach(), limit=9)).steps)
    assert [None] == await graph.store.links(GLOBEX, [LinkKey(A, "related", B)])
    assert [None, None] == await graph.store.resolve(GLOBEX, [named(A), named(B)])
    assert [B] == [step.reached for step in await outgoing(graph, A)]


async def test_concurrent_uses_of_the_same_memories_all_count(graph: Graph) -> None:
    await graph.remember(A, B)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(graph.write(UseTogether((A, B))))
    (link,) = await graph.store.links(ACME, [LinkKey(A, CO_RECALLED, B)])
    assert link is not None
    assert link.version == 20
    assert 1 - 0.9**20 == pytest.approx(link.strength, rel=1e-4)

"""Links, paths and ranking over both servers, on the real stack."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as memory_service
from soma_contract.errors import (
    FieldViolationError,
    LinkNotFoundError,
    MemoryNotFoundError,
    PageTokenInvalidError,
    SomaError,
    VersionMismatchError,
)
from soma_contract.links import CO_RECALLED, REFERENCES, USED_IN_PLAN
from tests.integration.graph.agents import NOWHERE, SERVERS, by_id, linker, refused
from tests.support.stack import Office

pytestmark = [pytest.mark.processes, pytest.mark.parametrize("through", SERVERS)]


async def test_a_link_is_stored_listed_and_removed(office: Office, through: str) -> None:
    agent = await linker(office, through)
    ada, bob = await agent.remember("Ada", "Bob")
    made = await agent.link(ada, bob, "knows", strength=0.5, metadata_json='{"since":1815}')
    page = await agent.links(bob, direction=pb.DIRECTION_INCOMING)
    assert (common.DURABILITY_STORED, True, 1) == (made.durability, made.created, made.link.version)
    assert [made.link] == list(page.links)
    removed = await agent.unlink(ada, bob, relation="knows")
    assert removed.revision == made.revision + 1
    assert [] == list((await agent.links(ada)).links)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await agent.unlink(ada, bob, relation="knows")
    assert isinstance(refused(failed), LinkNotFoundError)


@pytest.mark.parametrize("field", ["source", "target"])
async def test_a_dangling_link_is_refused_by_the_name_of_its_end(office: Office, through: str, field: str) -> None:
    agent = await linker(office, through)
    (ada,) = await agent.remember("Ada")
    ends = (NOWHERE, ada) if field == "source" else (ada, NOWHERE)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await agent.link(*ends)
    error = refused(failed)
    assert isinstance(error, MemoryNotFoundError)
    assert {"memory_id": NOWHERE, "field": field} == error.metadata


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"metadata_json": '{"tenant":"globex"}'}, "metadata_json"),
        ({"metadata_json": '{"Version":7}'}, "metadata_json"),
        ({"metadata_json": "[]"}, "metadata_json"),
        ({"strength": 0.0}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"relation": "x" * 257}, "relation"),
        ({"if_match": -1}, "if_match"),
    ],
)
async def test_what_a_link_may_not_be_is_refused_with_its_field(
    office: Office, through: str, fields: dict[str, Any], path: str
) -> None:
    agent = await linker(office, through)
    ada, bob = await agent.remember("Ada", "Bob")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await agent.link(ada, bob, **fields)
    error = refused(failed)
    assert isinstance(error, FieldViolationError)
    assert [path] == [violation.field for violation in error.violations]


async def test_a_self_link_is_refused_however_it_is_named(office: Office, through: str) -> None:
    agent = await linker(office, through)
    (ada,) = await agent.remember("Ada", key="ada")
    for target in (by_id(ada), common.MemoryTarget(key=common.NamespacedKey(key="ada"))):
        request = pb.LinkRequest(source=by_id(ada), target=target)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await agent.graph.Link(request, metadata=agent.agent.metadata, timeout=20)
        error = refused(failed)
        assert isinstance(error, SomaError)
        assert ["target"] == [violation.field for violation in error.violations]


async def test_a_condition_on_the_version_decides(office: Office, through: str) -> None:
    agent = await linker(office, through)
    ada, bob = await agent.remember("Ada", "Bob")
    await agent.link(ada, bob, if_match=0)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await agent.link(ada, bob, strength=0.5, if_match=0)
    assert isinstance(refused(failed), VersionMismatchError)
    assert 2 == (await agent.link(ada, bob, strength=0.5, if_match=1)).link.version


async def test_a_repeated_link_gets_its_first_answer(office: Office, through: str) -> None:
    agent = await linker(office, through)
    ada, bob = await agent.remember("Ada", "Bob")
    first = await agent.link(ada, bob, strength=0.5, request_id="one")
    assert first == await agent.link(ada, bob, strength=0.5, request_id="one")


async def test_pages_of_links_join_and_a_token_opens_no_other_list(office: Office, through: str) -> None:
    agent = await linker(office, through)
    hub, *others = await agent.remember("hub", *(f"leaf {number}" for number in range(7)))
    for number, other in enumerate(others):
        await agent.link(hub, other, strength=(number + 1) / 10)
    seen, token = [], ""
    while True:
        page = await agent.links(hub, page_size=3, page_token=token)
        seen += [link.target_id for link in page.links]
        token = page.next_page_token
        if not token:
            break
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await agent.links(others[0], page_size=3, page_token=token)
        assert isinstance(refused(failed), PageTokenInvalidError)
    assert others[::-1] == seen


async def test_neighbours_paths_subgraphs_and_ranks_agree_on_a_small_graph(office: Office, through: str) -> None:
    agent = await linker(office, through)
    a, b, c, d = await agent.remember("a", "b", "c", "d")
    await agent.link(a, b, strength=0.9)
    await agent.link(b, c, strength=0.9)
    await agent.link(a, c, strength=0.5)
    await agent.link(c, d, strength=0.8)
    near, summary = await agent.neighbors(a, k_hop=2, include_memories=True)
    assert [(b, 1, "b"), (c, 1, "c"), (d, 2, "d")] == [(one.memory_id, one.depth, one.memory.text) for one in near]
    assert not summary.partial
    paths, _ = await agent.paths(a, d, max_paths=3)
    assert [[a, b, c, d], [a, c, d]] == [list(path.memory_ids) for path in paths]
    short, _ = await agent.paths(a, d, max_length=2)
    assert [[a, c, d]] == [list(path.memory_ids) for path in short]
    none, _ = await agent.paths(d, a, direction=pb.DIRECTION_OUTGOING)
    assert [] == none
    depths, links, _ = await agent.subgraph(b, radius=1)
    assert ({b: 0, a: 1, c: 1}, 3) == (depths, len(links))
    ranked = (await agent.rank(a)).ranked
    assert {a, b, c, d} == {one.memory_id for one in ranked}
    assert 1.0 == pytest.approx(sum(one.score for one in ranked))


async def test_co_recall_creates_links(office: Office, through: str) -> None:
    agent = await linker(office, through)
    a, b, c = await agent.remember("a", "b", "c")
    told = await agent.used_together([a, b, NOWHERE], request_id="r")
    again = await agent.used_together([a, b, NOWHERE], request_id="r")
    more = await agent.used_together([b, c], request_id="r", sequence=2, plan_id="spring")
    assert (1, 0, 1, common.DURABILITY_STORED) == (
        told.applied,
        told.repeated_frames,
        told.unknown_ids,
        told.durability,
    )
    assert (0, 1) == (again.applied, again.repeated_frames)
    assert 1 == more.applied
    near, _ = await agent.neighbors(b, relations=[CO_RECALLED])
    assert {a, c} == {one.memory_id for one in near}
    assert [0.1, 0.1] == pytest.approx([one.strength for one in near], rel=1e-3)
    plan = (await agent.links(b, relations=[USED_IN_PLAN])).links
    assert [{"plan_ids": ["spring"]}] == [json.loads(link.metadata_json) for link in plan]


async def test_an_outcome_moves_the_utility_of_an_option_once(office: Office, through: str) -> None:
    agent = await linker(office, through)
    (option,) = await agent.remember("ask before deleting", kind=memory_pb2.KIND_PROCEDURAL, importance=0.5)
    (fact,) = await agent.remember("water is wet")
    outcome = pb.OptionOutcome(memory_id=option, outcome=1.0)
    frames = [pb.ReinforceRequest(request_id="turn", sequence=n, option_outcome=outcome) for n in (1, 2)]
    first = await agent.reinforce(frames)
    again = await agent.reinforce(frames)
    assert ((2, 0), (0, 2)) == (
        (first.applied, first.repeated_frames),
        (again.applied, again.repeated_frames),
    )
    expected = 0.5
    for _ in frames:
        expected += 0.05 * (1.0 - expected)
    assert expected == pytest.approx((await agent.agent.get(option)).importance)
    wrong = pb.OptionOutcome(memory_id=fact, outcome=1.0)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await agent.reinforce([pb.ReinforceRequest(request_id="w", sequence=1, option_outcome=wrong)])
    assert isinstance(refused(failed), FieldViolationError)


async def test_a_payloads_references_are_links_as_long_as_it_names_them(office: Office, through: str) -> None:
    agent = await linker(office, through)
    city, name = await agent.remember("London", key="user.city"), await agent.remember("Ada", key="user.name")
    (fact,) = await agent.remember("Ada lives in London", payload_json='{"references":["user.city","user.name"]}')
    made = (await agent.links(fact)).links
    assert {(city[0], REFERENCES), (name[0], REFERENCES)} == {(link.target_id, link.relation) for link in made}
    memory = memory_pb2.Memory(
        memory_id=fact, text="Somebody lives in London", payload_json='{"references":"user.city"}'
    )
    request = memory_service.RememberRequest(memory=memory)
    await agent.agent.memory.Remember(request, metadata=agent.agent.metadata, timeout=20)
    assert city == [link.target_id for link in (await agent.links(fact)).links]
    bare = memory_service.RememberRequest(memory=memory_pb2.Memory(memory_id=fact, text="nobody"))
    await agent.agent.memory.Remember(bare, metadata=agent.agent.metadata, timeout=20)
    assert [] == list((await agent.links(fact)).links)


async def test_another_tenant_learns_nothing_of_links_and_memories(office: Office, through: str) -> None:
    owner, stranger = await linker(office, through), await linker(office, through)
    a, b = await owner.remember("a", "b")
    (c,) = await stranger.remember("c")
    await owner.link(a, b)
    told = []
    for target in (a, NOWHERE):
        for call in (
            stranger.link(c, target),
            stranger.link(target, c),
            stranger.links(target),
            stranger.neighbors(target),
            stranger.paths(c, target),
            stranger.unlink(target, c),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            error = refused(failed)
            told.append((error.code, error.reason, error.message, error.metadata.get("field")))
    there, absent = told[: len(told) // 2], told[len(told) // 2 :]
    assert absent == there
    assert ({}, []) == (await stranger.subgraph(a, b, radius=3))[:2]
    assert [] == list((await stranger.rank(a, b)).ranked)
    unknown = await stranger.used_together([a, c], request_id="r")
    assert 1 == unknown.unknown_ids
    assert 1 == len((await owner.links(a)).links)


async def test_graph_boost_applied_in_recall(office: Office, through: str) -> None:
    agent = await linker(office, through)
    seed, twin, linked, far = await agent.remember(
        "the red bicycle stands in the garage",
        "a note about lunch on monday",
        "a note about lunch on sunday",
        "the aurora was seen over the bay",
    )
    await agent.link(seed, linked)
    await agent.link(linked, far)
    question = "where does the red bicycle stand"
    plain = await agent.agent.recall(question, limit=4)
    boosted = await agent.agent.recall(
        question, limit=4, ranking=memory_service.Ranking(graph=1.0), graph_hops=2, explain=True
    )
    rank = {one: boosted.ids.index(one) for one in (seed, twin, linked)}
    assert rank[seed] < rank[linked] < rank[twin]
    by_id_ = {hit.memory.memory_id: hit for hit in boosted.hits}
    assert [seed, linked] == list(by_id_[linked].path_memory_ids)
    assert by_id_[linked].signals.graph > by_id_[twin].signals.graph == 0.0
    ran = {leg.leg: leg.state for leg in boosted.summary.legs}
    assert memory_service.LEG_STATE_RAN == ran[memory_service.RECALL_LEG_GRAPH]
    off = {leg.leg: leg.state for leg in plain.summary.legs}
    assert memory_service.LEG_STATE_SKIPPED == off[memory_service.RECALL_LEG_GRAPH]
    assert not any(hit.path_memory_ids for hit in plain.hits)

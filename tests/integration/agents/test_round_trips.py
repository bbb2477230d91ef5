"""What goes in comes out: through convert, through Get, through Recall."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import memory_from_pb, memory_to_pb
from soma_contract.coordinate import coordinate_of
from soma_contract.ids import new_memory_id
from soma_contract.memory import Kind, Memory, Provenance, Vector, View
from tests.support.stack import Office

_LABELS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_TIMES = st.integers(0, 230 * 365 * 86_400 * 10**6).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _LABELS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_LABELS, inner, max_size=4),
    max_leaves=12,
)
MEMORIES = st.builds(
    Memory,
    memory_id=st.builds(new_memory_id, st.integers(0, 2**47)),
    namespace=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    key=_LABELS,
    kind=st.sampled_from(Kind),
    schema_type=_LABELS,
    schema_version=_LABELS,
    persona_id=_LABELS,
    text=_LABELS,
    payload_json=st.just("") | st.dictionaries(_LABELS, _JSON, max_size=5).map(json.dumps),
    tags=st.lists(_LABELS.filter(bool), max_size=5, unique=True).map(tuple),
    actor=_LABELS,
    session_id=_LABELS,
    sequence=st.none() | st.integers(0, 2**63 - 1),
    provenance=st.builds(Provenance, author=_LABELS, source=_LABELS, confidence=st.none() | st.floats(0, 1)),
    importance=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    relevance=st.none() | st.floats(0, 1),
    occurred_at=st.none() | _TIMES,
    expires_at=st.none() | _TIMES,
    embedding=st.none() | st.lists(st.floats(0.0625, 1, width=32), min_size=1, max_size=8).map(Vector.of),
    embedding_model=_LABELS,
    created_at=st.none() | _TIMES,
    updated_at=st.none() | _TIMES,
    version=st.integers(0, 2**63 - 1),
)


@given(memory=MEMORIES)
def test_serialize_deserialize_roundtrip(memory: Memory) -> None:
    checks = Checks()
    wire = memory_pb2.Memory.FromString(memory_to_pb(memory, View.FULL).SerializeToString())
    back = memory_from_pb(wire, checks, "memory", keep_times=True)
    checks.done()
    assert memory == back


async def test_store_recall_roundtrip(office: Office) -> None:
    agent = await office.agent()
    written = memory_pb2.Memory(
        text="Ilya pins libwebp at 1.4 in the build image – “naïve” ☂ 𝔘𝔫𝔦",
        key="build.libwebp",
        kind=memory_pb2.KIND_SEMANTIC,
        schema_type="BuildDecision",
        schema_version="2",
        persona_id="coder",
        payload_json='{"version": 1.40, "big": 9223372036854775808, "nested": {"list": [1, 2.50, null]}}',
        tags=["build", "image"],
        actor="Ilya",
        session_id="s-1",
        sequence=7,
        importance=2.5,
        relevance=0.75,
    )
    written.provenance.author = "Ilya"
    written.provenance.confidence = 0.9
    written.occurred_time.FromDatetime(datetime(2026, 9, 2, 14, 20, 0, 123456, tzinfo=UTC))
    written.expire_time.FromDatetime(datetime(2199, 1, 1, tzinfo=UTC))
    answer = await agent.memory.Remember(pb.RememberRequest(memory=written), metadata=agent.metadata)
    expected = memory_pb2.Memory()
    expected.CopyFrom(written)
    expected.memory_id = answer.memory.memory_id
    expected.namespace = "default"
    expected.coordinate.values.extend(coordinate_of("build.libwebp"))
    expected.version = 1

    async def checked(found: memory_pb2.Memory) -> None:
        found.ClearField("create_time")
        found.ClearField("update_time")
        found.ClearField("embedding_model")
        assert expected == found

    await checked(await agent.get(answer.memory.memory_id))
    by_text = await agent.recall(written.text)
    await checked(by_text.hits[0].memory)
    assert 1 == by_text.hits[0].signals.exact
    await office.indexed()
    by_meaning = await agent.recall("which version of the image library is fixed?")
    await checked(by_meaning.hits[0].memory)


async def test_a_recall_right_after_the_acknowledgement_finds_the_write(office: Office) -> None:
    agent = await office.agent()
    for number in range(30):
        text = f"Parcel {number} lies behind door {number * 7}."
        await agent.remember(text)
        assert text == (await agent.recall(text)).texts[0]


async def test_a_ttl_ends_a_memory(office: Office) -> None:
    agent = await office.agent()
    request = pb.RememberRequest(memory=memory_pb2.Memory(text="A short-lived thought about tides."))
    request.ttl.FromTimedelta(timedelta(milliseconds=300))
    stored = (await agent.memory.Remember(request, metadata=agent.metadata)).memory
    ends_at = stored.expire_time.ToDatetime(tzinfo=UTC)
    while (found := (await agent.recall("thought about tides")).texts) and datetime.now(UTC) < ends_at + timedelta(
        seconds=5
    ):
        pass
    assert [] == found


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_a_repeated_request_gets_the_first_answer_and_another_one_is_refused(
    office: Office, through: str
) -> None:
    agent = await office.agent(through=through)
    request = pb.RememberRequest(memory=memory_pb2.Memory(text="once"), request_id="r-1")
    first = await agent.memory.Remember(request, metadata=agent.metadata)
    again = await agent.memory.Remember(request, metadata=agent.metadata)
    assert first.memory.memory_id == again.memory.memory_id
    assert first.memory.version == again.memory.version
    listed = await agent.memory.List(pb.ListRequest(), metadata=agent.metadata)
    assert ["once"] == [memory.text for memory in listed.memories]
    request.memory.text = "twice"
    with pytest.raises(grpc.aio.AioRpcError, match="request_id"):
        await agent.memory.Remember(request, metadata=agent.metadata)


@pytest.mark.parametrize("order", [pb.LIST_ORDER_CREATED, pb.LIST_ORDER_UPDATED, pb.LIST_ORDER_KEY])
async def test_a_list_of_big_memories_comes_in_answers_of_3_mib_at_most(
    office: Office, order: pb.ListOrder.ValueType
) -> None:
    agent = await office.agent(through="memory")
    payload = json.dumps({"log": "x" * 120_000})
    made = {
        (await agent.remember(f"log {n}", key=f"log.{n}", payload_json=payload)).memory.memory_id for n in range(60)
    }
    request, listed, pages = pb.ListRequest(page_size=1_000, order=order), list[str](), 0
    while pages == 0 or request.page_token:
        page = await agent.memory.List(request, metadata=agent.metadata, timeout=20)
        assert page.ByteSize() <= 3 * 1024 * 1024 + 1_000
        listed += [memory.memory_id for memory in page.memories]
        pages += 1
        request.page_token = page.next_page_token
    assert (3, 60, made) == (pages, len(listed), set(listed))

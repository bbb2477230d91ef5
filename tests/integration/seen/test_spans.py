"""The spans of one call, from the agent's own down to the stores, as a collector receives them from both servers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pytest

from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from tests.integration.seen.conftest import Scene
from tests.support.collector import Seen

pytestmark = pytest.mark.processes

BRAIN, MEMORY = "soma-brain-server", "soma-memory-server"
REMEMBER = "soma.memory.v1.MemoryService/Remember"
RECALL = "soma.memory.v1.MemoryService/Recall"


def new_trace() -> tuple[str, str, tuple[str, str]]:
    """A trace an agent has begun: its id, the agent's span, the header that says so."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, ("traceparent", f"00-{trace_id}-{span_id}-01")


def the(spans: Sequence[Seen], service: str, kind: str, name: str) -> Seen:
    """The only span of its kind and name."""
    found = [span for span in spans if (span.service, span.kind, span.name) == (service, kind, name)]
    assert len(found) == 1, f"{len(found)} spans {service} {kind} {name} among {spans}"
    return found[0]


def have(service: str, kind: str, name: str) -> object:
    """Whether such a span has arrived."""
    return lambda spans: any((each.service, each.kind, each.name) == (service, kind, name) for each in spans)


async def test_a_write_is_one_trace_from_the_agent_to_postgres(scene: Scene) -> None:
    agent = await scene.office.agent()
    trace_id, agents_span, header = new_trace()
    request = pb.RememberRequest(memory=memory_pb2.Memory(text="Ada prefers tea"))
    await agent.memory.Remember(request, metadata=[*agent.metadata, header], timeout=20)

    def whole(spans: Sequence[Seen]) -> bool:
        return {BRAIN, MEMORY} <= {span.service for span in spans if span.kind == "SERVER"}

    spans = await scene.collector.until(whole, trace_id)
    outer = the(spans, BRAIN, "SERVER", REMEMBER)
    between = the(spans, BRAIN, "CLIENT", REMEMBER)
    inner = the(spans, MEMORY, "SERVER", REMEMBER)
    assert (agents_span, outer.span_id, between.span_id) == (outer.parent_id, between.parent_id, inner.parent_id)
    assert agent.tenant == inner.attributes["soma.tenant"]
    assert "OK" == inner.attributes["rpc.response.status_code"]
    stores = {span.attributes["db.system.name"] for span in spans if span.parent_id == inner.span_id}
    assert "postgresql" in stores


async def test_a_recall_shows_its_trips_to_the_stores(scene: Scene) -> None:
    agent = await scene.office.agent()
    await agent.remember("Ada prefers tea")
    trace_id, _, header = new_trace()
    call = agent.memory.Recall(pb.RecallRequest(text="tea"), metadata=[*agent.metadata, header], timeout=20)
    assert [frame async for frame in call]

    def whole(spans: Sequence[Seen]) -> bool:
        return any(span.service == MEMORY and span.kind == "SERVER" for span in spans)

    spans = await scene.collector.until(whole, trace_id)
    inner = the(spans, MEMORY, "SERVER", RECALL)
    trips = [span for span in spans if span.parent_id == inner.span_id]
    assert {"postgresql", "milvus"} <= {trip.attributes["db.system.name"] for trip in trips}
    assert {"CLIENT"} == {trip.kind for trip in trips}


async def test_a_refusal_is_told_by_its_reason_and_no_text(scene: Scene) -> None:
    agent = await scene.office.agent()
    trace_id, _, header = new_trace()
    request = pb.GetRequest(target=common.MemoryTarget(memory_id="01900000-0000-7000-8000-0000000000ff"))
    with pytest.raises(Exception, match="No such memory"):
        await agent.memory.Get(request, metadata=[*agent.metadata, header], timeout=20)
    spans = await scene.collector.until(lambda found: len({span.service for span in found}) == 2, trace_id)
    told = {span.attributes.get("error.type") for span in spans if span.kind == "SERVER"}
    assert {"MEMORY_NOT_FOUND"} == told


async def test_a_delivery_long_after_its_call_is_a_trace_of_its_own_linked_to_it(scene: Scene) -> None:
    agent = await scene.office.agent()
    await agent.remember("so that the key is known")
    await scene.stack.kill("memory")
    trace_id, _, header = new_trace()
    request = pb.RememberRequest(memory=memory_pb2.Memory(text="written while nobody was there"))
    answer = await agent.memory.Remember(request, metadata=[*agent.metadata, header], timeout=20)
    assert common.DURABILITY_QUEUED == answer.durability

    def stored(span: Seen, spans: Sequence[Seen]) -> bool:
        return any(each.trace_id == span.trace_id and each.service == MEMORY for each in spans)

    def whole(spans: Sequence[Seen]) -> bool:
        return any(trace_id in span.links and stored(span, spans) for span in spans)

    spans = await scene.collector.until(whole)
    delivery = next(span for span in spans if trace_id in span.links and stored(span, spans))
    assert ("deliver remember", "CONSUMER", "") == (delivery.name, delivery.kind, delivery.parent_id)
    inner = next(span for span in spans if span.trace_id == delivery.trace_id and span.service == MEMORY)
    assert delivery.trace_id != trace_id
    assert agent.tenant == delivery.attributes["soma.tenant"]
    assert inner.trace_id == delivery.trace_id
    await scene.stack.ready("memory")

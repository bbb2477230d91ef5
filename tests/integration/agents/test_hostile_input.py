"""Bad input gets INVALID_ARGUMENT and the path of the field, or is stored and read back to the letter."""

from __future__ import annotations

import struct
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from rpckit.status import error_from_rpc
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.errors import SomaError
from tests.support.stack import Agent, Office

LABEL = "x" * 257
LONG = "x" * (128 * 1024 + 1)


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


REMEMBER: dict[str, tuple[dict[str, object], str]] = {
    "nothing at all": ({}, "memory"),
    "no text, payload or key": ({"memory": {"actor": "a"}}, "memory.text"),
    "an id that is no UUID": ({"memory": {"text": "t", "memoryId": "42"}}, "memory.memory_id"),
    "a namespace in capitals": ({"memory": {"text": "t", "namespace": "Default"}}, "memory.namespace"),
    "a key that is too long": ({"memory": {"key": LABEL}}, "memory.key"),
    "a text with NUL": ({"memory": {"text": "a\0b"}}, "memory.text"),
    "a text that is too long": ({"memory": {"text": LONG}}, "memory.text"),
    "a payload that is too long": ({"memory": {"payloadJson": '{"text":"' + LONG + '"}'}}, "memory.payload_json"),
    "a payload that is no object": ({"memory": {"text": "t", "payloadJson": "[1]"}}, "memory.payload_json"),
    "a payload with NaN": ({"memory": {"text": "t", "payloadJson": '{"a": NaN}'}}, "memory.payload_json"),
    "a payload with a doubled key": (
        {"memory": {"text": "t", "payloadJson": '{"a": 1, "a": 2}'}},
        "memory.payload_json",
    ),
    "a payload that is too deep": ({"memory": {"text": "t", "payloadJson": deep(33)}}, "memory.payload_json"),
    "a payload with NUL": ({"memory": {"text": "t", "payloadJson": '{"a": "\\u0000"}'}}, "memory.payload_json"),
    "a payload with half a surrogate": (
        {"memory": {"text": "t", "payloadJson": '{"a": "\\ud800"}'}},
        "memory.payload_json",
    ),
    "a payload with 41 digits": (
        {"memory": {"text": "t", "payloadJson": '{"a": ' + "9" * 41 + "}"}},
        "memory.payload_json",
    ),
    "a payload with a huge exponent": (
        {"memory": {"text": "t", "payloadJson": '{"a": 1e400}'}},
        "memory.payload_json",
    ),
    "65 tags": ({"memory": {"text": "t", "tags": [str(n) for n in range(65)]}}, "memory.tags"),
    "an empty tag": ({"memory": {"text": "t", "tags": [""]}}, "memory.tags[0]"),
    "a repeated tag": ({"memory": {"text": "t", "tags": ["a", "a"]}}, "memory.tags"),
    "an actor that is too long": ({"memory": {"text": "t", "actor": LABEL}}, "memory.actor"),
    "a session that is too long": ({"memory": {"text": "t", "sessionId": LABEL}}, "memory.session_id"),
    "a negative sequence": ({"memory": {"text": "t", "sequence": -1}}, "memory.sequence"),
    "an infinite importance": ({"memory": {"text": "t", "importance": "Infinity"}}, "memory.importance"),
    "a relevance over 1": ({"memory": {"text": "t", "relevance": 1.01}}, "memory.relevance"),
    "a confidence that is NaN": (
        {"memory": {"text": "t", "provenance": {"confidence": "NaN"}}},
        "memory.provenance.confidence",
    ),
    "a time after 2200": (
        {"memory": {"text": "t", "occurredTime": "2201-01-01T00:00:00Z"}},
        "memory.occurred_time",
    ),
    "a time before 1970": (
        {"memory": {"text": "t", "occurredTime": "1969-12-31T23:59:59Z"}},
        "memory.occurred_time",
    ),
    "ttl and expire time": (
        {"memory": {"text": "t", "expireTime": "2199-01-01T00:00:00Z"}, "ttl": "10s"},
        "ttl",
    ),
    "a ttl of nothing": ({"memory": {"text": "t"}, "ttl": "0s"}, "ttl"),
    "a version condition of 0": ({"memory": {"text": "t"}, "ifMatch": 0}, "if_match"),
    "two conditions": ({"memory": {"text": "t"}, "ifMatch": 1, "ifAbsent": True}, "if_match"),
    "a request id that is too long": ({"memory": {"text": "t"}, "requestId": "r" * 129}, "request_id"),
    "a coordinate of two numbers": (
        {"memory": {"text": "t", "coordinate": {"values": [0.1, 0.2]}}},
        "memory.coordinate.values",
    ),
    "a coordinate that is NaN": (
        {"memory": {"text": "t", "coordinate": {"values": ["NaN", 0.1, 0.2]}}},
        "memory.coordinate.values",
    ),
    "a coordinate out of range": (
        {"memory": {"text": "t", "coordinate": {"values": [1.5, 0.1, 0.2]}}},
        "memory.coordinate.values",
    ),
    "somebody else's coordinate": (
        {"memory": {"text": "t", "key": "k", "coordinate": {"values": [0.5, 0.1, 0.2]}}},
        "memory.coordinate",
    ),
    "an embedding of zeros": (
        {"memory": {"text": "t", "embedding": {"values": {"values": [0.0] * 384}}}},
        "memory.embedding",
    ),
    "an embedding with NaN": (
        {"memory": {"text": "t", "embedding": {"values": {"values": ["NaN"] * 384}}}},
        "memory.embedding",
    ),
    "an embedding of 4,097 dimensions": (
        {"memory": {"text": "t", "embedding": {"values": {"values": [1.0] * 4097}}}},
        "memory.embedding",
    ),
    "an embedding without encoding": ({"memory": {"text": "t", "embedding": {}}}, "memory.embedding"),
}

RECALL: dict[str, tuple[dict[str, object], str]] = {
    "nothing to find": ({}, "query"),
    "blank text": ({"text": "  "}, "query"),
    "a text with NUL": ({"text": "a\0b"}, "text"),
    "a text that is too long": ({"text": LONG}, "text"),
    "a limit of 201": ({"text": "t", "limit": 201}, "limit"),
    "a negative limit": ({"text": "t", "limit": -1}, "limit"),
    "a min_score of NaN": ({"text": "t", "minScore": "NaN"}, "min_score"),
    "a min_relevance over 1": ({"text": "t", "minRelevance": 2}, "min_relevance"),
    "a ranking over 1": ({"text": "t", "ranking": {"recency": 1.5}}, "ranking.recency"),
    "an unknown preset": ({"text": "t", "preset": 99}, "preset"),
    "an unknown leg": ({"text": "t", "legs": [99]}, "legs"),
    "four hops": ({"text": "t", "graphHops": 4}, "graph_hops"),
    "a negative budget": ({"text": "t", "tokenBudget": -1}, "token_budget"),
    "a like without target": ({"like": {}}, "like"),
    "a filter without values": ({"text": "t", "filter": {"actor": {}}}, "filter.actor.values"),
    "a filter with a long value": (
        {"text": "t", "filter": {"allOf": {"filters": [{"actor": {"values": [LABEL]}}]}}},
        "filter.all_of.filters[0].actor.values[0]",
    ),
    "a filter by an infinite number": (
        {"text": "t", "filter": {"number": {"field": "NUMBER_FIELD_IMPORTANCE", "low": "Infinity"}}},
        "filter.number.low",
    ),
    "a time range without ends": (
        {"text": "t", "filter": {"time": {"field": "TIME_FIELD_CREATED"}}},
        "filter.time",
    ),
    "a payload condition without path": (
        {"text": "t", "filter": {"payload": {"comparison": "PAYLOAD_COMPARISON_EXISTS"}}},
        "filter.payload.path",
    ),
    "an id in a filter that is no UUID": (
        {"text": "t", "filter": {"memoryId": {"values": ["x' or 1=1"]}}},
        "filter.memory_id.values[0]",
    ),
}


async def refusal(call: object) -> SomaError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call  # type: ignore[misc]
    return error_from_rpc(failed.value)


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_each_bad_field_of_remember_is_named(office: Office, through: str) -> None:
    agent = await office.agent(through=through)
    wrong = {}
    for name, (fields, path) in REMEMBER.items():
        request = ParseDict(fields, pb.RememberRequest())
        error = await refusal(agent.memory.Remember(request, metadata=agent.metadata))
        if (error.reason, [path]) != ("FIELD_VIOLATION", [violation.field for violation in error.violations]):
            wrong[name] = (error.reason, error.violations)
    assert {} == wrong
    listed = await agent.memory.List(pb.ListRequest(), metadata=agent.metadata)
    assert [] == list(listed.memories)


async def recalled(agent: Agent, request: pb.RecallRequest) -> list[pb.RecallResponse]:
    return [frame async for frame in agent.memory.Recall(request, metadata=agent.metadata)]


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_each_bad_field_of_recall_is_named(office: Office, through: str) -> None:
    agent = await office.agent(through=through)
    wrong = {}
    for name, (fields, path) in RECALL.items():
        error = await refusal(recalled(agent, ParseDict(fields, pb.RecallRequest())))
        if error.reason != "FIELD_VIOLATION" or path not in [violation.field for violation in error.violations]:
            wrong[name] = (error.reason, error.violations)
    assert {} == wrong


async def test_all_violations_are_told_at_once(office: Office) -> None:
    agent = await office.agent()
    request = pb.RememberRequest(memory=memory_pb2.Memory(text="a\0", actor=LABEL, relevance=2.0))
    error = await refusal(agent.memory.Remember(request, metadata=agent.metadata))
    assert ["memory.text", "memory.actor", "memory.relevance"] == [each.field for each in error.violations]


@pytest.mark.parametrize("through", ["brain", "memory"])
async def test_a_vector_of_another_dimension_is_refused_with_both_numbers(office: Office, through: str) -> None:
    agent = await office.agent(through=through)
    vector = common.Vector(packed_f32=struct.pack("<3f", 1, 2, 3))
    error = await refusal(recalled(agent, pb.RecallRequest(embedding=vector)))
    assert ("DIMENSION_MISMATCH", "384", "3") == (error.reason, error.metadata["expected"], error.metadata["actual"])


@pytest.mark.parametrize(
    "payload",
    [
        '{"n": 9223372036854775808}',
        '{"n": -9223372036854775809, "m": 1.10, "z": -0.0, "e": 1E+2}',
        '{"n": ' + "9" * 40 + "}",
        deep(32),
        '{"k\\u00e9y": "☂", "": [], "o": {}}',
        '  {"spaces" : [ 1 , 2 ] }  ',
    ],
)
async def test_an_odd_payload_reads_back_to_the_letter(office: Office, payload: str) -> None:
    agent = await office.agent()
    stored = await agent.remember("odd", payload_json=payload)
    assert payload == (await agent.get(stored.memory.memory_id)).payload_json


TEXTS: list[Callable[[], str]] = [
    lambda: "'; DROP TABLE memory_items; --",
    lambda: 'tenant == "other" or pk like "%"',
    lambda: "\\ \" ' ` $1 %s {0} \u2028 \ufeff \U0001f9e0",
    lambda: "x" * (128 * 1024),
    lambda: "AND OR NOT ( ) * : ^ ~",
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_a_text_that_looks_like_code_is_just_a_text(office: Office, text: Callable[[], str]) -> None:
    agent = await office.agent()
    stored = await agent.remember(text(), tags=["'\"\\"], actor="' or ''='")
    assert text() == (await agent.get(stored.memory.memory_id)).text
    request = pb.RecallRequest(text=text())
    request.filter.all_of.filters.add().actor.values.append("' or ''='")
    request.filter.all_of.filters.add().tags_any.values.append("'\"\\")
    frames = await recalled(agent, request)
    assert [stored.memory.memory_id] == [frame.hit.memory.memory_id for frame in frames[:-1]]

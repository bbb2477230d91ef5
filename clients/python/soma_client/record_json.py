"""Records as JSON objects in the contract's own field names, both ways; the form of exports, imports and readers.

A memory is an object of its own fields (``{"text": "Ada prefers tea"}``), a link stands under the name ``link``; a
memory may stand under ``memory`` too.  Vectors are ``{"packed_f32": base64}`` or ``{"values": {"values": […]}}``, times
RFC 3339.  What these functions know directly goes a fast way; everything else the contract's JSON allows, protobuf's.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from soma.batch.v1 import batch_service_pb2 as pb
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.memory.v1 import memory_pb2
from soma_contract.convert.memories import timestamp
from soma_contract.errors import FieldViolationError

Parsed = TypeVar("Parsed", bound=Message)

_TEXTS = frozenset(
    {
        "memory_id",
        "namespace",
        "key",
        "schema_type",
        "schema_version",
        "persona_id",
        "text",
        "payload_json",
        "actor",
        "session_id",
        "embedding_model",
    }
)
_AS_THEY_ARE: dict[str, tuple[type, ...]] = {
    "importance": (int, float),
    "relevance": (int, float),
    "sequence": (int,),
    "version": (int,),
    "tags": (list,),
}
"""Values that go to the wire as they are."""
_COUNTS = frozenset({"sequence", "version"})
TIMES = frozenset({"occurred_time", "create_time", "update_time", "expire_time"})
_LINK_TEXTS = frozenset({"source_id", "target_id", "relation", "metadata_json"})
LINK_TIMES = frozenset({"valid_from_time", "valid_until_time", "create_time", "update_time"})
MEMORY_FIELDS = frozenset(memory_pb2.Memory.DESCRIPTOR.fields_by_name)
LINK_FIELDS = frozenset(graph_pb.MemoryLink.DESCRIPTOR.fields_by_name)
_TO_MICROSECONDS = len("2020-01-02T03:04:05.000006Z")


class _UnusualError(Exception):
    """The fast way does not know this; protobuf's may."""


# --- from JSON -----------------------------------------------------------------------------------


def record_of_line(line: bytes) -> pb.Record:
    """Read one line; raises FieldViolationError that says what is wrong with it."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise FieldViolationError.at("record", f"is not JSON: {error}") from None
    return record_of(found)


def record_of(found: object) -> pb.Record:
    """Read one object; raises FieldViolationError."""
    if not isinstance(found, dict):
        raise FieldViolationError.at("record", "is not a JSON object")
    if len(found) == 1:
        name, value = next(iter(found.items()))
        if name == "link" and isinstance(value, dict):
            return pb.Record(link=_link(value))
        if name == "memory" and isinstance(value, dict):
            found = value
    return pb.Record(memory=memory_of(found))


def memory_of(found: Mapping[str, Any]) -> memory_pb2.Memory:
    """Read a memory; raises FieldViolationError with the path of the field."""
    try:
        return memory_pb2.Memory(**{name: _memory_value(name, value) for name, value in found.items()})
    except (_UnusualError, TypeError, ValueError):
        return _parsed(found, memory_pb2.Memory(), "memory")


def _link(found: Mapping[str, Any]) -> graph_pb.MemoryLink:
    try:
        return graph_pb.MemoryLink(**{name: _link_value(name, value) for name, value in found.items()})
    except (_UnusualError, TypeError, ValueError):
        return _parsed(found, graph_pb.MemoryLink(), "link")


def _parsed(found: Mapping[str, Any], message: Parsed, name: str) -> Parsed:
    try:
        return ParseDict(dict(found), message)
    except ParseError as error:
        raise FieldViolationError.at(name, str(error)) from None


def _memory_value(name: str, value: Any) -> Any:
    if type(value) is str:
        if name in _TEXTS:
            return value
        if name in TIMES:
            return _time(value)
        if name in _COUNTS:
            return int(value)
        if name == "kind":
            return memory_pb2.Kind.Value(value)
    known = _AS_THEY_ARE.get(name, ())
    if type(value) in known:
        return value
    if type(value) is dict:
        return _nested(name, value)
    raise _UnusualError


def _nested(name: str, value: dict[str, Any]) -> Any:
    if name == "embedding" and value.keys() == {"packed_f32"}:
        try:
            return common.Vector(packed_f32=b64decode(value["packed_f32"], validate=True))
        except Base64Error:
            raise _UnusualError from None
    if name == "provenance":
        return common.Provenance(**value)
    if name == "coordinate" and value.keys() == {"values"}:
        return common.Coordinate(values=value["values"])
    raise _UnusualError


def _link_value(name: str, value: Any) -> Any:
    if type(value) is str:
        if name in _LINK_TEXTS:
            return value
        if name in LINK_TIMES:
            return _time(value)
        if name == "version":
            return int(value)
    elif (name == "strength" and type(value) in (int, float)) or (name == "version" and type(value) is int):
        return value
    raise _UnusualError


def _time(text: str) -> Timestamp:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or len(text) > _TO_MICROSECONDS:
        raise _UnusualError
    found = timestamp(at.astimezone(UTC))
    assert found is not None
    return found


# --- to JSON -------------------------------------------------------------------------------------


def line_of(record: pb.Record) -> bytes:
    """One line, its end included."""
    return orjson.dumps(object_of(record), option=orjson.OPT_APPEND_NEWLINE)


def object_of(record: pb.Record) -> dict[str, Any]:
    """One object; what is empty is left out."""
    if record.HasField("link"):
        return {"link": _fields(record.link)}
    return _fields(record.memory)


def _fields(message: memory_pb2.Memory | graph_pb.MemoryLink) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        write = _WRITERS.get(field.name)
        found[field.name] = value if write is None else write(value)
    return found


def _written_vector(vector: common.Vector) -> dict[str, Any]:
    if vector.WhichOneof("encoding") == "packed_f32":
        return {"packed_f32": b64encode(vector.packed_f32).decode()}
    return dict(MessageToDict(vector, preserving_proto_field_name=True))


def _written_time(time: Timestamp) -> str:
    return time.ToJsonString()


_WRITERS: dict[str, Callable[[Any], Any]] = {
    "kind": memory_pb2.Kind.Name,
    "tags": list,
    "coordinate": lambda value: {"values": list(value.values)},
    "provenance": lambda value: MessageToDict(value, preserving_proto_field_name=True),
    "embedding": _written_vector,
    **dict.fromkeys(TIMES | LINK_TIMES, _written_time),
}

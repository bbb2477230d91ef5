"""A memory written into a message that is part of another.

Written field by field, in place: a message that is made apart and then put into another is serialised and parsed
for it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from soma.memory.v1 import memory_pb2 as pb
from soma_contract.memory import Kind, Memory, Provenance, View

KINDS_PB = {
    Kind.EPISODIC: pb.KIND_EPISODIC,
    Kind.SEMANTIC: pb.KIND_SEMANTIC,
    Kind.PROCEDURAL: pb.KIND_PROCEDURAL,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNSTATED = Provenance()


def memory_to_pb(memory: Memory, view: View = View.BASIC) -> pb.Memory:
    """Write a memory."""
    wire = pb.Memory()
    write_memory(wire, memory, view)
    return wire


def write_memory(wire: pb.Memory, memory: Memory, view: View = View.BASIC) -> None:
    """Write a memory into an empty message."""
    wire.memory_id = memory.memory_id
    wire.namespace = memory.namespace
    wire.kind = KINDS_PB[memory.kind]
    wire.text = memory.text
    wire.version = memory.version
    if memory.key:
        wire.key = memory.key
    if memory.coordinate is not None:
        wire.coordinate.values.extend(memory.coordinate)
    if memory.schema_type:
        wire.schema_type = memory.schema_type
    if memory.schema_version:
        wire.schema_version = memory.schema_version
    if memory.persona_id:
        wire.persona_id = memory.persona_id
    if memory.payload_json:
        wire.payload_json = memory.payload_json
    if memory.tags:
        wire.tags.extend(memory.tags)
    if memory.actor:
        wire.actor = memory.actor
    if memory.session_id:
        wire.session_id = memory.session_id
    if memory.sequence is not None:
        wire.sequence = memory.sequence
    if memory.importance is not None:
        wire.importance = memory.importance
    if memory.relevance is not None:
        wire.relevance = memory.relevance
    if memory.embedding_model:
        wire.embedding_model = memory.embedding_model
    if memory.occurred_at is not None:
        _write_time(wire.occurred_time, memory.occurred_at)
    if memory.created_at is not None:
        _write_time(wire.create_time, memory.created_at)
    if memory.updated_at is not None:
        _write_time(wire.update_time, memory.updated_at)
    if memory.expires_at is not None:
        _write_time(wire.expire_time, memory.expires_at)
    if memory.provenance is not _UNSTATED and memory.provenance != _UNSTATED:
        wire.provenance.author = memory.provenance.author
        wire.provenance.source = memory.provenance.source
        if memory.provenance.confidence is not None:
            wire.provenance.confidence = memory.provenance.confidence
    if view is View.FULL and memory.embedding is not None:
        wire.embedding.packed_f32 = memory.embedding.packed


def timestamp(at: datetime | None) -> Timestamp | None:
    """Write a time."""
    if at is None:
        return None
    wire = Timestamp()
    _write_time(wire, at)
    return wire


def _write_time(wire: Timestamp, at: datetime) -> None:
    # FromDatetime() costs three times as much, and a hit holds several times.
    since = at - _EPOCH
    wire.SetInParent()
    wire.seconds = since.days * 86_400 + since.seconds
    if since.microseconds:
        wire.nanos = since.microseconds * 1_000

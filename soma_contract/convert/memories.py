"""Memories, targets and the commands that change memories."""

from __future__ import annotations

from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2 as pb
from soma.memory.v1 import memory_service_pb2 as service
from soma_contract.convert.checks import Checks
from soma_contract.convert.memory_writing import KINDS_PB
from soma_contract.convert.memory_writing import memory_to_pb as memory_to_pb
from soma_contract.convert.memory_writing import timestamp as timestamp
from soma_contract.limits import LIMITS
from soma_contract.memory import (
    Durability,
    Forget,
    Kind,
    Memory,
    Provenance,
    Remember,
    Target,
    Update,
    Vector,
    View,
    Written,
)

_KINDS = {
    pb.KIND_UNSPECIFIED: Kind.EPISODIC,
    pb.KIND_EPISODIC: Kind.EPISODIC,
    pb.KIND_SEMANTIC: Kind.SEMANTIC,
    pb.KIND_PROCEDURAL: Kind.PROCEDURAL,
}
_VIEWS = {
    pb.MEMORY_VIEW_UNSPECIFIED: View.BASIC,
    pb.MEMORY_VIEW_BASIC: View.BASIC,
    pb.MEMORY_VIEW_FULL: View.FULL,
}
_DURABILITIES = {
    Durability.STORED: common.DURABILITY_STORED,
    Durability.QUEUED: common.DURABILITY_QUEUED,
}
REQUEST_ID_BYTES = 128

MASKABLE = {
    "kind": "kind",
    "schema_type": "schema_type",
    "schema_version": "schema_version",
    "persona_id": "persona_id",
    "text": "text",
    "payload_json": "payload_json",
    "tags": "tags",
    "actor": "actor",
    "session_id": "session_id",
    "sequence": "sequence",
    "provenance": "provenance",
    "importance": "importance",
    "relevance": "relevance",
    "occurred_time": "occurred_at",
    "expire_time": "expires_at",
    "embedding": "embedding",
}
"""Wire fields that an update mask may name, and the domain fields they are."""
_WIRE_FIELDS = {domain: wire for wire, domain in MASKABLE.items()}


def kind_from_pb(value: pb.Kind.ValueType, checks: Checks, path: str) -> Kind:
    """Read a kind; an unknown number is a violation."""
    kind = _KINDS.get(value)
    if kind is None:
        checks.fail(path, "is not a known kind")
        return Kind.EPISODIC
    return kind


def kind_to_pb(kind: Kind) -> pb.Kind.ValueType:
    """Write a kind."""
    return KINDS_PB[kind]


def view_from_pb(value: pb.MemoryView.ValueType, checks: Checks, path: str) -> View:
    """Read a view; an unknown number is a violation."""
    view = _VIEWS.get(value)
    if view is None:
        checks.fail(path, "is not a known view")
        return View.BASIC
    return view


def durability_to_pb(durability: Durability) -> common.Durability.ValueType:
    """Write where a write is durable."""
    return _DURABILITIES[durability]


def memory_from_pb(
    wire: pb.Memory, checks: Checks, path: str, *, persona: str = "", session: str = "", keep_times: bool = False
) -> Memory:
    """Read a memory as a writer sends it.

    ``persona`` and ``session`` stand in for empty ones.  ``keep_times`` reads the server-set times
    and version too, as imports do.
    """
    if wire.tags and len(wire.tags) != len(set(wire.tags)):
        checks.fail(f"{path}.tags", "must not repeat a tag")
    sequence = wire.sequence if wire.HasField("sequence") else None
    if sequence is not None and sequence < 0:
        checks.fail(f"{path}.sequence", "must not be negative")
    provenance = Provenance()
    if wire.HasField("provenance"):
        origin = wire.provenance
        provenance = Provenance(
            checks.text(f"{path}.provenance.author", origin.author),
            checks.text(f"{path}.provenance.source", origin.source),
            checks.number(f"{path}.provenance.confidence", origin.HasField("confidence"), origin.confidence, 0.0, 1.0),
        )
    # What is not there needs no check: most fields of most memories are empty, and imports read many.
    return Memory(
        memory_id=wire.memory_id and checks.memory_id(f"{path}.memory_id", wire.memory_id),
        namespace=checks.namespace(f"{path}.namespace", wire.namespace),
        key=wire.key and checks.text(f"{path}.key", wire.key),
        coordinate=(checks.coordinate(f"{path}.coordinate", wire.coordinate) if wire.HasField("coordinate") else None),
        kind=kind_from_pb(wire.kind, checks, f"{path}.kind"),
        schema_type=wire.schema_type and checks.text(f"{path}.schema_type", wire.schema_type),
        schema_version=wire.schema_version and checks.text(f"{path}.schema_version", wire.schema_version),
        persona_id=(wire.persona_id and checks.text(f"{path}.persona_id", wire.persona_id)) or persona,
        text=wire.text and checks.text(f"{path}.text", wire.text, LIMITS.text_bytes),
        payload_json=wire.payload_json and checks.payload(f"{path}.payload_json", wire.payload_json),
        tags=checks.labels(f"{path}.tags", wire.tags, LIMITS.tags) if wire.tags else (),
        actor=wire.actor and checks.text(f"{path}.actor", wire.actor),
        session_id=(wire.session_id and checks.text(f"{path}.session_id", wire.session_id)) or session,
        sequence=sequence,
        provenance=provenance,
        importance=(
            checks.number(f"{path}.importance", True, wire.importance) if wire.HasField("importance") else None
        ),
        relevance=(
            checks.number(f"{path}.relevance", True, wire.relevance, 0.0, 1.0) if wire.HasField("relevance") else None
        ),
        occurred_at=(
            checks.time(f"{path}.occurred_time", True, wire.occurred_time) if wire.HasField("occurred_time") else None
        ),
        expires_at=(
            checks.time(f"{path}.expire_time", True, wire.expire_time) if wire.HasField("expire_time") else None
        ),
        embedding=checks.vector(f"{path}.embedding", wire.embedding) if wire.HasField("embedding") else None,
        embedding_model=wire.embedding_model and checks.text(f"{path}.embedding_model", wire.embedding_model),
        created_at=(
            checks.time(f"{path}.create_time", True, wire.create_time)
            if keep_times and wire.HasField("create_time")
            else None
        ),
        updated_at=(
            checks.time(f"{path}.update_time", True, wire.update_time)
            if keep_times and wire.HasField("update_time")
            else None
        ),
        version=wire.version if keep_times else 0,
    )


def vector_to_pb(vector: Vector) -> common.Vector:
    """Write a vector as packed bytes."""
    return common.Vector(packed_f32=vector.packed)


def target_from_pb(wire: common.MemoryTarget, present: bool, checks: Checks, path: str) -> Target:
    """Read which memory is meant."""
    which = wire.WhichOneof("target") if present else None
    if which == "memory_id":
        return Target(memory_id=checks.memory_id(f"{path}.memory_id", wire.memory_id) or _missing(checks, path))
    if which == "key":
        return Target(
            namespace=checks.namespace(f"{path}.key.namespace", wire.key.namespace),
            key=checks.required(f"{path}.key.key", wire.key.key),
        )
    if which == "coordinate":
        return Target(
            namespace=checks.namespace(f"{path}.coordinate.namespace", wire.coordinate.namespace),
            coordinate=checks.coordinate(f"{path}.coordinate.coordinate", wire.coordinate.coordinate),
        )
    _missing(checks, path)
    return Target()


def target_to_pb(target: Target) -> common.MemoryTarget:
    """Write which memory is meant."""
    if target.memory_id:
        return common.MemoryTarget(memory_id=target.memory_id)
    if target.key:
        return common.MemoryTarget(key=common.NamespacedKey(namespace=target.namespace, key=target.key))
    assert target.coordinate is not None
    return common.MemoryTarget(
        coordinate=common.NamespacedCoordinate(
            namespace=target.namespace, coordinate=common.Coordinate(values=target.coordinate)
        )
    )


def remember_from_pb(
    wire: service.RememberRequest, checks: Checks, path: str = "", *, persona: str = "", session: str = ""
) -> Remember:
    """Read what to store."""
    at = f"{path}." if path else ""
    if not wire.HasField("memory"):
        checks.fail(f"{at}memory", "is required")
    if wire.HasField("ttl") and wire.memory.HasField("expire_time"):
        checks.fail(f"{at}ttl", "excludes memory.expire_time")
    if wire.HasField("if_match") and wire.if_absent:
        checks.fail(f"{at}if_match", "excludes if_absent")
    return Remember(
        memory=memory_from_pb(wire.memory, checks, f"{at}memory", persona=persona, session=session),
        ttl_s=checks.ttl(f"{at}ttl", wire.HasField("ttl"), wire.ttl),
        if_match=version_from_pb(wire.HasField("if_match"), wire.if_match, checks, f"{at}if_match"),
        if_absent=wire.if_absent,
        request_id=checks.text(f"{at}request_id", wire.request_id, REQUEST_ID_BYTES),
    )


def remember_to_pb(command: Remember) -> service.RememberRequest:
    """Write what to store."""
    wire = service.RememberRequest(
        memory=memory_to_pb(command.memory, View.FULL),
        if_match=command.if_match,
        if_absent=command.if_absent,
        request_id=command.request_id,
    )
    if command.ttl_s is not None:
        wire.ttl.FromNanoseconds(round(command.ttl_s * 1e9))
    return wire


def update_from_pb(wire: service.UpdateRequest, checks: Checks) -> Update:
    """Read what to change."""
    mask: list[str] = []
    if not wire.update_mask.paths:
        checks.fail("update_mask", "must name at least one field")
    for position, name in enumerate(wire.update_mask.paths):
        if name.removeprefix("memory.") not in MASKABLE:
            checks.fail(f"update_mask.paths[{position}]", f"must be one of {', '.join(MASKABLE)}")
        else:
            mask.append(MASKABLE[name.removeprefix("memory.")])
    if wire.HasField("ttl") and "expires_at" in mask:
        checks.fail("ttl", "excludes expire_time in update_mask")
    return Update(
        target=target_from_pb(wire.target, wire.HasField("target"), checks, "target"),
        memory=memory_from_pb(wire.memory, checks, "memory"),
        mask=tuple(dict.fromkeys(mask)),
        ttl_s=checks.ttl("ttl", wire.HasField("ttl"), wire.ttl),
        if_match=version_from_pb(wire.HasField("if_match"), wire.if_match, checks, "if_match"),
        request_id=checks.text("request_id", wire.request_id, REQUEST_ID_BYTES),
    )


def update_to_pb(command: Update) -> service.UpdateRequest:
    """Write what to change."""
    wire = service.UpdateRequest(
        target=target_to_pb(command.target),
        memory=memory_to_pb(command.memory, View.FULL),
        if_match=command.if_match,
        request_id=command.request_id,
    )
    wire.update_mask.paths.extend(_WIRE_FIELDS[field] for field in command.mask)
    if command.ttl_s is not None:
        wire.ttl.FromNanoseconds(round(command.ttl_s * 1e9))
    return wire


def forget_to_pb(command: Forget) -> service.ForgetRequest:
    """Write what to delete."""
    return service.ForgetRequest(
        target=target_to_pb(command.target),
        if_match=command.if_match,
        allow_missing=command.allow_missing,
        request_id=command.request_id,
    )


def forget_from_pb(wire: service.ForgetRequest, checks: Checks) -> Forget:
    """Read what to delete."""
    return Forget(
        target=target_from_pb(wire.target, wire.HasField("target"), checks, "target"),
        if_match=version_from_pb(wire.HasField("if_match"), wire.if_match, checks, "if_match"),
        allow_missing=wire.allow_missing,
        request_id=checks.text("request_id", wire.request_id, REQUEST_ID_BYTES),
    )


def remembered_to_pb(written: Written, durability: Durability) -> service.RememberResponse:
    """Write what was stored."""
    return service.RememberResponse(
        memory=memory_to_pb(written.memory) if written.memory else None,
        durability=_DURABILITIES[durability],
        revision=written.revision,
        created=written.created,
        warnings=written.warnings,
    )


def version_from_pb(present: bool, value: int, checks: Checks, path: str) -> int | None:
    """Read a version condition."""
    if not present:
        return None
    if value < 1:
        checks.fail(path, "must be a version, which is at least 1")
    return value


def _missing(checks: Checks, path: str) -> str:
    checks.fail(path, "name the memory by memory_id, key or coordinate")
    return ""

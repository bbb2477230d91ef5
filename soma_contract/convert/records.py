"""Records and import jobs from and to the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from soma.batch.v1 import batch_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.links import link_to_pb, metadata_from_pb
from soma_contract.convert.memories import REQUEST_ID_BYTES, memory_from_pb, memory_to_pb, timestamp
from soma_contract.errors import FieldViolationError, SomaError
from soma_contract.limits import LIMITS
from soma_contract.links import RELATED, Link
from soma_contract.memory import Memory, View
from soma_contract.records import Conflict, ImportJob, ImportOptions, ImportState, Record, Refused

MAX_VERSION = 2**53
"""A version beyond this would leave no room for the versions after it."""

_CONFLICTS = {
    pb.IMPORT_CONFLICT_UNSPECIFIED: Conflict.SKIP,
    pb.IMPORT_CONFLICT_SKIP: Conflict.SKIP,
    pb.IMPORT_CONFLICT_OVERWRITE: Conflict.OVERWRITE,
    pb.IMPORT_CONFLICT_FAIL: Conflict.FAIL,
}
_CONFLICTS_PB = {
    Conflict.SKIP: pb.IMPORT_CONFLICT_SKIP,
    Conflict.OVERWRITE: pb.IMPORT_CONFLICT_OVERWRITE,
    Conflict.FAIL: pb.IMPORT_CONFLICT_FAIL,
}
_STATES_PB = {
    ImportState.ACTIVE: pb.IMPORT_STATE_ACTIVE,
    ImportState.SUCCEEDED: pb.IMPORT_STATE_SUCCEEDED,
    ImportState.FAILED: pb.IMPORT_STATE_FAILED,
    ImportState.CANCELLED: pb.IMPORT_STATE_CANCELLED,
}


# --- records -------------------------------------------------------------------------------------


def records_from_pb(wires: Iterable[pb.Record], namespace: str = "") -> Iterator[Record | SomaError]:
    """Read records one by one as they are asked for; one that is wrong is its own error, with paths of its fields."""
    for wire in wires:
        try:
            yield record_from_pb(wire, namespace)
        except SomaError as error:
            yield error


def record_from_pb(wire: pb.Record, namespace: str = "") -> Record:
    """Read a record; raises FieldViolationError."""
    checks = Checks(namespace)
    which = wire.WhichOneof("record")
    record: Record
    if which == "memory":
        record = memory_from_pb(wire.memory, checks, "memory", keep_times=True)
        _check_history(record, checks)
    elif which == "link":
        record = _link_from_pb(wire.link, checks)
    else:
        raise FieldViolationError.at("record", "give a memory or a link")
    checks.done()
    return record


def record_to_pb(record: Record) -> pb.Record:
    """Write a record with all it has."""
    if isinstance(record, Memory):
        return pb.Record(memory=memory_to_pb(record, View.FULL))
    return pb.Record(link=link_to_pb(record))


def _check_history(memory: Memory, checks: Checks) -> None:
    _check_version("memory.version", memory.version, checks)
    if memory.created_at and memory.updated_at and memory.updated_at < memory.created_at:
        checks.fail("memory.update_time", "must not be before create_time")


def _check_version(path: str, version: int, checks: Checks) -> None:
    if not 0 <= version <= MAX_VERSION:
        checks.fail(path, f"must be from 0 to {MAX_VERSION}")


def _link_from_pb(wire: graph_pb.MemoryLink, checks: Checks) -> Link:
    source_id = checks.memory_id("link.source_id", checks.required("link.source_id", wire.source_id))
    target_id = checks.memory_id("link.target_id", checks.required("link.target_id", wire.target_id))
    if source_id and source_id == target_id:
        checks.fail("link.target_id", "must not be the source: a memory is never linked to itself")
    strength = checks.number("link.strength", True, wire.strength, 0.0, 1.0)
    if strength == 0.0:
        checks.fail("link.strength", "must be over 0 and at most 1")
    valid_from = checks.time("link.valid_from_time", wire.HasField("valid_from_time"), wire.valid_from_time)
    valid_until = checks.time("link.valid_until_time", wire.HasField("valid_until_time"), wire.valid_until_time)
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        checks.fail("link.valid_until_time", "must be after valid_from_time")
    _check_version("link.version", wire.version, checks)
    return Link(
        source_id=source_id,
        target_id=target_id,
        relation=checks.text("link.relation", wire.relation) or RELATED,
        strength=strength or 1.0,
        metadata_json=metadata_from_pb(wire.metadata_json, checks, "link.metadata_json"),
        valid_from=valid_from,
        valid_until=valid_until,
        version=wire.version,
        created_at=checks.time("link.create_time", wire.HasField("create_time"), wire.create_time),
        updated_at=checks.time("link.update_time", wire.HasField("update_time"), wire.update_time),
    )


# --- jobs ----------------------------------------------------------------------------------------


def import_options_from_pb(wire: pb.CreateImportRequest, checks: Checks) -> ImportOptions:
    """Read how an import is to go."""
    conflict = _CONFLICTS.get(wire.on_conflict)
    if conflict is None:
        checks.fail("on_conflict", "is not a known way")
    if wire.HasField("max_refused") and wire.max_refused < 0:
        checks.fail("max_refused", "must not be negative")
    return ImportOptions(
        on_conflict=conflict or Conflict.SKIP,
        max_refused=wire.max_refused if wire.HasField("max_refused") else None,
        dry_run=wire.dry_run,
        label=checks.text("label", wire.label),
        request_id=checks.text("request_id", wire.request_id, REQUEST_ID_BYTES),
    )


def import_job_to_pb(job: ImportJob) -> pb.ImportJob:
    """Write a job."""
    return pb.ImportJob(
        import_id=job.import_id,
        state=_STATES_PB[job.state],
        committed_offset=job.committed_offset,
        stored=job.stored,
        skipped=job.skipped,
        refused=job.refused,
        indexed=job.indexed,
        total=job.total,
        on_conflict=_CONFLICTS_PB[job.options.on_conflict],
        max_refused=job.options.max_refused,
        dry_run=job.options.dry_run,
        label=job.options.label,
        create_time=timestamp(job.created_at),
        update_time=timestamp(job.updated_at),
        expire_time=timestamp(job.expires_at),
    )


def check_chunk(wire: pb.ImportChunk) -> None:
    """Raise FieldViolationError for a chunk beyond its limits: such a chunk ends the stream."""
    if wire.offset < 0:
        raise FieldViolationError.at("chunk.offset", "must not be negative")
    if not 1 <= len(wire.records) <= LIMITS.chunk_records:
        raise FieldViolationError.at("chunk.records", f"must hold 1 to {LIMITS.chunk_records} records")
    if wire.ByteSize() > LIMITS.chunk_bytes:
        raise FieldViolationError.at("chunk", f"must have at most {LIMITS.chunk_bytes} bytes")


def refused_to_pb(refused: Refused) -> pb.RefusedRecord:
    """Write a refusal."""
    return pb.RefusedRecord(offset=refused.offset, error=item_error_to_pb(refused.error))

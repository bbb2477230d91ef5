"""Rows of import jobs, refusals, and of what an import writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from memory_server.bulk_ports import PreparedMemory
from memory_server.stores.fingerprints import place_key, term_keys, text_key
from memory_server.stores.standings import Standing
from soma_contract.errors import Code, SomaError, Violation, from_reason, rebuilt
from soma_contract.links import Link
from soma_contract.records import Conflict, ImportJob, ImportOptions, ImportState, Refused

JOB_COLUMNS = (
    "j.import_id, j.state, j.on_conflict, j.max_refused, j.dry_run, j.label, j.request_id, j.committed_offset,"
    " j.stored, j.skipped, j.refused, j.memories, j.total, j.created_at, j.updated_at"
)
STAGED_COLUMNS = [
    "memory_id",
    "namespace",
    "key",
    "coordinate",
    "kind",
    "schema_type",
    "schema_version",
    "persona_id",
    "text",
    "payload",
    "tags",
    "actor",
    "session_id",
    "sequence",
    "author",
    "source",
    "confidence",
    "importance",
    "relevance",
    "occurred_at",
    "expires_at",
    "embedding",
    "embedding_model",
    "created_at",
    "updated_at",
    "version",
    "deleted",
    "content_hash",
    "origin_at",
    "origin_brain",
    "term_keys",
    "term_counts",
    "length",
    "text_key",
    "place_key",
    "before",
    "ended",
    "ordinal",
    "made",
]


def job_of(row: Any, waiting: int = 0) -> ImportJob:
    """Read a job; ``waiting`` of its memories are not indexed yet."""
    options = ImportOptions(
        on_conflict=Conflict(row["on_conflict"]),
        max_refused=row["max_refused"],
        dry_run=row["dry_run"],
        label=row["label"],
        request_id=row["request_id"],
    )
    return ImportJob(
        import_id=str(row["import_id"]),
        options=options,
        state=ImportState(row["state"]),
        committed_offset=row["committed_offset"],
        stored=row["stored"],
        skipped=row["skipped"],
        refused=row["refused"],
        indexed=0 if row["dry_run"] else max(0, row["memories"] - waiting),
        total=row["total"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def refusal_values(refused: Refused) -> tuple[int, str, str, str, str]:
    """The columns of a refusal."""
    error = refused.error
    return (
        refused.offset,
        error.reason,
        error.message,
        orjson.dumps([list(violation) for violation in error.violations]).decode() if error.violations else "",
        orjson.dumps(error.metadata).decode() if error.metadata else "",
    )


def refusal_of(row: Any) -> Refused:
    """Read a refusal."""
    cls = from_reason(row["reason"])
    error = rebuilt(
        cls.code if cls is not None else Code.UNKNOWN,
        row["reason"],
        row["description"],
        metadata=orjson.loads(row["metadata"]) if row["metadata"] else {},
        retry_after_s=None,
        violations=[Violation(*violation) for violation in orjson.loads(row["violations"] or "[]")],
    )
    return Refused(row["record"], error)


def staged_values(
    tenant_name: str, row: Standing, record: PreparedMemory | None, *, before: int, ended: bool, ordinal: int
) -> tuple[object, ...]:
    """One row for import_rows; a tombstone has no ``record``, ``before`` is the version it replaces."""
    memory, origin = row.memory, row.origin
    provenance, embedding = memory.provenance, memory.embedding
    terms = record.terms if record is not None else None
    made = record.admitted.made if record is not None else None
    coordinate = memory.coordinate
    assert coordinate is not None
    return (
        memory.memory_id,
        memory.namespace,
        memory.key,
        coordinate,
        memory.kind.value,
        memory.schema_type,
        memory.schema_version,
        memory.persona_id,
        memory.text,
        memory.payload_json,
        memory.tags,
        memory.actor,
        memory.session_id,
        memory.sequence,
        provenance.author,
        provenance.source,
        provenance.confidence,
        memory.importance,
        memory.relevance,
        memory.occurred_at,
        memory.expires_at,
        embedding.packed if embedding is not None else None,
        memory.embedding_model,
        memory.created_at,
        memory.updated_at,
        memory.version,
        row.deleted,
        row.content,
        origin.at if origin is not None else None,
        origin.brain_id if origin is not None else "",
        term_keys(tenant_name, terms.terms) if terms is not None else (),
        terms.counts if terms is not None else (),
        terms.length if terms is not None else 0,
        0 if row.deleted else text_key(memory.text),
        place_key(coordinate),
        before,
        ended,
        ordinal,
        made.packed if made is not None else None,
    )


def link_values(link: Link) -> tuple[object, ...]:
    """The columns of a link, as import_rows.sql takes them."""
    return (
        link.source_id,
        link.target_id,
        link.relation,
        link.strength,
        link.metadata_json,
        link.valid_from,
        link.valid_until,
        link.version,
        link.created_at,
        link.updated_at,
    )


def transposed(rows: Sequence[Sequence[object]], width: int) -> list[Sequence[object]]:
    """Rows as columns."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def internal_refusal(error: SomaError) -> SomaError:
    """What is told of a record that the store cannot take for a reason of its own: the reason, no text of a driver."""
    return rebuilt(error.code, error.reason, "the store could not take this record", metadata={})

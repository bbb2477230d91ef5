"""Rows of the truth as memories, and memories as rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson

from memory_server.ports import KeywordTerms
from memory_server.stores.fingerprints import place_key, term_keys, text_key
from memory_server.stores.standings import Standing
from soma_contract.memory import Coordinate, Kind, Memory, Origin, Provenance, Vector

_KINDS: dict[str, Kind] = {kind.value: kind for kind in Kind}
_UNSTATED = Provenance()
_BEFORE_EMBEDDING = (
    "memory_id namespace key coordinate kind schema_type schema_version persona_id text payload tags actor"
    " session_id sequence author source confidence importance relevance occurred_at expires_at"
)
_AFTER_EMBEDDING = "embedding_model created_at updated_at version"


def columns(alias: str, *, embedding: str = "NULL::bytea") -> str:
    """The columns :func:`memory_of` reads, in its order; ``embedding`` is an expression of ours."""
    before = [f"{alias}.{name}" for name in _BEFORE_EMBEDDING.split()]
    after = [f"{alias}.{name}" for name in _AFTER_EMBEDDING.split()]
    return ", ".join([*before, embedding, *after])


WIDTH = len(_BEFORE_EMBEDDING.split()) + 1 + len(_AFTER_EMBEDDING.split())
"""How many columns :func:`memory_of` reads."""


def memory_of(row: Sequence[Any]) -> Memory:
    """Read a memory from the first columns of a row."""
    embedding = row[21]
    return Memory(
        str(row[0]),
        row[1],
        row[2],
        tuple(row[3]),
        _KINDS[row[4]],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        tuple(row[10]),
        row[11],
        row[12],
        row[13],
        Provenance(row[14], row[15], row[16]) if row[14] or row[15] or row[16] is not None else _UNSTATED,
        row[17],
        row[18],
        row[19],
        row[20],
        None if embedding is None else Vector(embedding),
        row[22],
        row[23],
        row[24],
        row[25],
    )


def header_of(row: Sequence[Any]) -> Standing:
    """Read what lock_rows.sql answers about a row: no content, only what verdicts need."""
    (
        memory_id,
        namespace,
        key,
        coordinate,
        created_at,
        updated_at,
        expires_at,
        version,
        deleted,
        content_hash,
        origin_at,
        origin_brain,
    ) = row
    memory = Memory(
        memory_id=str(memory_id),
        namespace=namespace,
        key=key,
        coordinate=tuple(coordinate),
        expires_at=expires_at,
        created_at=created_at,
        updated_at=updated_at,
        version=version,
    )
    origin = Origin(origin_brain, origin_at) if origin_at is not None else None
    return Standing(memory, deleted, content_hash, origin, whole=False)


def content_values(memory: Memory) -> list[object]:
    """The values of a memory's columns, in the order of :func:`columns`."""
    provenance = memory.provenance
    assert memory.coordinate is not None
    return [
        memory.memory_id,
        memory.namespace,
        memory.key,
        _coordinate(memory.coordinate),
        memory.kind.value,
        memory.schema_type,
        memory.schema_version,
        memory.persona_id,
        memory.text,
        memory.payload_json,
        text_array(memory.tags),
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
        memory.embedding.packed if memory.embedding is not None else None,
        memory.embedding_model,
        memory.created_at,
        memory.updated_at,
        memory.version,
    ]


def row_values(
    tenant_name: str, row: Standing, terms: KeywordTerms | None, before: int, *, ended: bool
) -> list[object]:
    """The values of one changed row for write_rows.sql; ``before`` is the version it replaces."""
    assert row.memory.coordinate is not None
    keys = term_keys(tenant_name, terms.terms) if terms is not None else ()
    counts = terms.counts if terms is not None else ()
    return [
        *content_values(row.memory),
        row.deleted,
        row.content,
        row.origin.at if row.origin is not None else None,
        row.origin.brain_id if row.origin is not None else "",
        _int_array(keys),
        _int_array(counts),
        terms.length if terms is not None else 0,
        0 if row.deleted else text_key(row.memory.text),
        place_key(row.memory.coordinate),
        before,
        ended,
    ]


def dump_memory(memory: Memory) -> str:
    """Write a memory down for a later repetition of the same answer; it has no embedding."""
    values = content_values(memory)
    values[10] = list(memory.tags)
    return orjson.dumps(values).decode()


def load_memory(text: str) -> Memory:
    """Read what :func:`dump_memory` wrote."""
    values = orjson.loads(text)
    values[3] = [float(part) for part in values[3].strip("{}").split(",")]
    for place in (19, 20, 23, 24):
        values[place] = datetime.fromisoformat(values[place]) if values[place] else None
    return memory_of(values)


def text_array(items: Iterable[str]) -> str:
    """A text[] literal: unnest() would flatten arrays of arrays, so they travel as text."""
    quoted = (item.replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"


def _int_array(items: Iterable[int]) -> str:
    return "{" + ",".join(map(str, items)) + "}"


def _coordinate(coordinate: Coordinate) -> str:
    return "{" + ",".join(map(repr, coordinate)) + "}"

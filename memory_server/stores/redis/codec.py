"""A memory as bytes and back, to the last bit; JSON, because nothing that can run code may be read from a cache."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from soma_contract.memory import Kind, Memory, Provenance, Vector

FORMAT: Final = 1
"""First element of the list; another one is not understood and counts as a miss."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_memory(memory: Memory) -> bytes:
    """Return a memory as bytes: a JSON list in the order of the fields, times as microseconds since 1970."""
    provenance = memory.provenance
    return json.dumps(
        [
            FORMAT,
            memory.memory_id,
            memory.namespace,
            memory.key,
            memory.coordinate,
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
            [provenance.author, provenance.source, provenance.confidence],
            memory.importance,
            memory.relevance,
            _micros(memory.occurred_at),
            _micros(memory.expires_at),
            None if memory.embedding is None else base64.b64encode(memory.embedding.packed).decode(),
            memory.embedding_model,
            _micros(memory.created_at),
            _micros(memory.updated_at),
            memory.version,
        ],
        # As UTF-8 rather than escaped: half the size, and escapes would join two halves of a surrogate pair.
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8", "surrogatepass")


def decode_memory(packed: bytes) -> Memory | None:
    """Return the memory, or None for anything that ``encode_memory`` of this format did not write."""
    try:
        fields: list[Any] = json.loads(packed.decode("utf-8", "surrogatepass"))
        if fields[0] != FORMAT:
            return None
        (
            _,
            memory_id,
            namespace,
            key,
            coordinate,
            kind,
            schema_type,
            schema_version,
            persona_id,
            text,
            payload_json,
            tags,
            actor,
            session_id,
            sequence,
            (author, source, confidence),
            importance,
            relevance,
            occurred,
            expires,
            embedding,
            embedding_model,
            created,
            updated,
            version,
        ) = fields
        return Memory(
            memory_id=memory_id,
            namespace=namespace,
            key=key,
            coordinate=None if coordinate is None else (coordinate[0], coordinate[1], coordinate[2]),
            kind=Kind(kind),
            schema_type=schema_type,
            schema_version=schema_version,
            persona_id=persona_id,
            text=text,
            payload_json=payload_json,
            tags=tuple(tags),
            actor=actor,
            session_id=session_id,
            sequence=sequence,
            provenance=Provenance(author, source, confidence),
            importance=importance,
            relevance=relevance,
            occurred_at=_moment(occurred),
            expires_at=_moment(expires),
            embedding=None if embedding is None else Vector(base64.b64decode(embedding)),
            embedding_model=embedding_model,
            created_at=_moment(created),
            updated_at=_moment(updated),
            version=version,
        )
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError):
        return None


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + micros * _MICROSECOND

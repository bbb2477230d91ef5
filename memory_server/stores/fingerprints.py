"""Hashes that both journals keep: of content, of requests, of terms and texts."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import lru_cache

import orjson

from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Command, Coordinate, Forget, Memory, Remember, Target, Update

_NO_DAY = date(2000, 1, 1)
_UUID_7 = 7


def content_hash(memory: Memory) -> bytes:
    """16 bytes that are equal for equal content: every field a writer can set, the identity aside."""
    return _hash(_content(memory), memory)


def request_hash(command: Command) -> bytes:
    """16 bytes that are equal for the same request.

    An id that some server made up (a UUIDv7 without a key) is not part of what was asked: a repeated
    request comes with another one.
    """
    match command:
        case Remember(memory, ttl_s, if_match, if_absent):
            identity = "" if _is_made_up(memory) else memory.memory_id
            return _hash(["remember", identity, ttl_s, if_match, if_absent, *_content(memory)], memory)
        case Update(target, memory, mask, ttl_s, if_match):
            named = _named(target)
            return _hash(["update", *named, *sorted(mask), "", ttl_s, if_match, *_content(memory)], memory)
        case Forget(target, if_match, allow_missing):
            return _hash(["forget", *_named(target), if_match, allow_missing], None)


def request_day(request_id: str) -> date:
    """The day a request id belongs to: that of its timestamp if it is a UUIDv7, else a day long past.

    A function of the id alone, so that two servers at midnight look in the same place.
    """
    if len(request_id) != 36:
        return _NO_DAY
    try:
        value = uuid.UUID(request_id)
    except ValueError:
        return _NO_DAY
    if value.version != _UUID_7:
        return _NO_DAY
    seconds = (value.int >> 80) / 1000
    # Beyond what a date can hold, or before there were UUIDv7: an id with made-up bits.
    if not 1_577_836_800 <= seconds < 4_102_444_800:
        return _NO_DAY
    return datetime.fromtimestamp(seconds, UTC).date()


def term_keys(tenant_name: str, terms: Iterable[str]) -> list[int]:
    """64-bit keys of terms, different for every tenant, so that no index entry is shared by two."""
    return [_term_key(tenant_name, term) for term in terms]


def text_key(text: str) -> int:
    """A 64-bit key of a whole text, for finding it verbatim."""
    return _signed(hashlib.blake2b(text.encode(), digest_size=8, person=b"soma-text").digest())


def place_key(coordinate: Coordinate) -> int:
    """A 64-bit key of a coordinate."""
    packed = struct.pack(">ddd", *coordinate)
    return _signed(hashlib.blake2b(packed, digest_size=8, person=b"soma-place").digest())


@lru_cache(maxsize=200_000)
def _term_key(tenant_name: str, term: str) -> int:
    named = f"{tenant_name}\0{term}".encode()
    return _signed(hashlib.blake2b(named, digest_size=8, person=b"soma-term").digest())


def _signed(digest: bytes) -> int:
    return int.from_bytes(digest, "big", signed=True)


def _is_made_up(memory: Memory) -> bool:
    if memory.key:
        return memory.memory_id == keyed_memory_id(memory.namespace, memory.key)
    return memory.memory_id[14:15] == "7"


def _named(target: Target) -> list[object]:
    if target.memory_id:
        return [target.memory_id, "", "", None]
    return ["", target.namespace, target.key, target.coordinate]


def _content(memory: Memory) -> list[object]:
    provenance = memory.provenance
    return [
        memory.namespace,
        memory.key,
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
        memory.embedding_model,
    ]


def _hash(parts: list[object], memory: Memory | None) -> bytes:
    digest = hashlib.blake2b(orjson.dumps(parts), digest_size=16, person=b"soma-content")
    if memory is not None and memory.embedding is not None:
        digest.update(memory.embedding.packed)
    return digest.digest()

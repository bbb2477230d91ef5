"""Stored vectors as bytes, for the cache: lengths, then the four arrays, little-endian."""

from __future__ import annotations

import struct

import numpy as np

from memory_server.ports import StoredVectors

_HEAD = struct.Struct("<4sIIII")
_MAGIC = b"SV1\0"
_TOKEN_WIDTH = 64


def packed(vectors: StoredVectors) -> bytes:
    """Pack vectors; :func:`unpacked` gives back equal ones."""
    sentences, tokens = vectors.sentences, vectors.tokens
    return b"".join(
        (
            _HEAD.pack(_MAGIC, vectors.dense.size, sentences.shape[0], tokens.shape[0], vectors.token_ids.size),
            np.ascontiguousarray(vectors.dense, "<f4").tobytes(),
            np.ascontiguousarray(sentences, np.int8).tobytes(),
            np.ascontiguousarray(tokens, np.int8).tobytes(),
            np.ascontiguousarray(vectors.token_ids, "<i4").tobytes(),
        )
    )


def unpacked(value: bytes, dimension: int) -> StoredVectors | None:
    """Unpack vectors; None for bytes that are not vectors of this dimension."""
    if len(value) < _HEAD.size:
        return None
    magic, width, sentences, tokens, ids = _HEAD.unpack_from(value)
    sizes = (4 * width, sentences * width, tokens * _TOKEN_WIDTH, 4 * ids)
    if magic != _MAGIC or width != dimension or len(value) != _HEAD.size + sum(sizes):
        return None
    parts = []
    at = _HEAD.size
    for size in sizes:
        parts.append(value[at : at + size])
        at += size
    return StoredVectors(
        dense=np.frombuffer(parts[0], "<f4"),
        sentences=np.frombuffer(parts[1], np.int8).reshape(sentences, width),
        tokens=np.frombuffer(parts[2], np.int8).reshape(tokens, _TOKEN_WIDTH),
        token_ids=np.frombuffer(parts[3], "<i4"),
    )

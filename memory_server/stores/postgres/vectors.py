"""Vectors and term counts between numpy and bytea."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory_server.ports import StoredVectors

TOKEN_DIMENSION = 64
# array_send(): dimensions, flags, element type, length, lower bound, then each element behind its size.
_HEADER_BYTES = 20
_KEY = np.dtype([("size", ">i4"), ("value", ">i8")])
_COUNT = np.dtype([("size", ">i4"), ("value", ">i4")])


def vectors_of(dense: bytes, sentences: bytes, tokens: bytes, token_ids: bytes) -> StoredVectors:
    """Read the vectors of a version; the arrays are views on the bytes."""
    vector = np.frombuffer(dense, "<f4")
    return StoredVectors(
        vector,
        np.frombuffer(sentences, np.int8).reshape(-1, len(vector)),
        np.frombuffer(tokens, np.int8).reshape(-1, TOKEN_DIMENSION),
        np.frombuffer(token_ids, "<i4"),
    )


def all_vectors_of(rows: Sequence[tuple[bytes, bytes, bytes, bytes] | None]) -> list[StoredVectors | None]:
    """Read the vectors of many rows of one profile; each is a view on matrices that hold all of them.

    Ten times cheaper than row by row, and the scorer finds neighbouring rows in neighbouring memory.
    """
    present = [row for row in rows if row is not None]
    if not present:
        return [None] * len(rows)
    dense = np.frombuffer(b"".join([row[0] for row in present]), "<f4").reshape(len(present), -1)
    dimension = dense.shape[1]
    sentences = np.frombuffer(b"".join([row[1] for row in present]), np.int8).reshape(-1, dimension)
    tokens = np.frombuffer(b"".join([row[2] for row in present]), np.int8).reshape(-1, TOKEN_DIMENSION)
    token_ids = np.frombuffer(b"".join([row[3] for row in present]), "<i4")
    vectors: list[StoredVectors | None] = []
    place = sentence = token = 0
    for row in rows:
        if row is None:
            vectors.append(None)
            continue
        next_sentence, next_token = sentence + len(row[1]) // dimension, token + len(row[3]) // 4
        vectors.append(
            StoredVectors(
                dense[place],
                sentences[sentence:next_sentence],
                tokens[token:next_token],
                token_ids[token:next_token],
            )
        )
        place, sentence, token = place + 1, next_sentence, next_token
    return vectors


def vector_values(vectors: StoredVectors) -> tuple[bytes, bytes, bytes, bytes]:
    """The columns of memory_vectors."""
    return (
        np.ascontiguousarray(vectors.dense, "<f4").tobytes(),
        np.ascontiguousarray(vectors.sentences, np.int8).tobytes(),
        np.ascontiguousarray(vectors.tokens, np.int8).tobytes(),
        np.ascontiguousarray(vectors.token_ids, "<i4").tobytes(),
    )


def dense_matrix(packed: Sequence[bytes]) -> NDArray[np.float32]:
    """Stack dense vectors, shape (n, d); (0, 0) for none.  Vectors of one profile have one length."""
    if not packed:
        return np.zeros((0, 0), np.float32)
    return np.frombuffer(b"".join(packed), "<f4").reshape(len(packed), -1)


def bigints_of(sent: bytes) -> NDArray[np.int64]:
    """Read array_send() of a bigint[]."""
    return np.frombuffer(sent, _KEY, offset=_HEADER_BYTES)["value"].astype(np.int64) if len(sent) > 12 else _NONE


def count_matrix(keys: Sequence[int], rows: Sequence[tuple[bytes, bytes]]) -> NDArray[np.int32]:
    """How often each key occurs in each row, shape (rows, keys), from array_send() of keys and counts.

    All rows are looked through at once: a loop over rows would cost more than the query.
    """
    matrix = np.zeros((len(rows), len(keys)), np.int32)
    if not keys or not rows:
        return matrix
    sizes = [max(0, (len(sent) - _HEADER_BYTES) // _KEY.itemsize) for sent, _ in rows]
    packed_keys = b"".join(sent[_HEADER_BYTES:] for sent, _ in rows)
    packed_counts = b"".join(sent[_HEADER_BYTES:] for _, sent in rows)
    if not packed_keys:
        return matrix
    all_keys = np.frombuffer(packed_keys, _KEY)["value"].astype(np.int64)
    all_counts = np.frombuffer(packed_counts, _COUNT)["value"]
    owners = np.repeat(np.arange(len(rows)), sizes)
    for place, key in enumerate(keys):
        hits = np.flatnonzero(all_keys == key)
        matrix[owners[hits], place] = all_counts[hits]
    return matrix


_NONE: NDArray[Any] = np.zeros(0, np.int64)

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


def counts_of(sent: bytes) -> NDArray[np.int32]:
    """Read array_send() of an integer[]."""
    return np.frombuffer(sent, _COUNT, offset=_HEADER_BYTES)["value"].astype(np.int32) if len(sent) > 12 else _NO_COUNTS


_NONE: NDArray[Any] = np.zeros(0, np.int64)
_NO_COUNTS: NDArray[Any] = np.zeros(0, np.int32)

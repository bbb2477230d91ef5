"""Late interaction: comparing a query with a memory vector by vector instead of mean by mean.

MaxSim is from Khattab and Zaharia, "ColBERT" (2020); here over an ordinary sentence encoder's token vectors.  All
memories of a pool lie in one matrix, so that one matrix product scores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REACH = 0.9
"""What a neighbouring turn's token counts, compared with the memory's own."""
ABSENT = -1
INT8_SCALE = 127.0
"""Stored int8 components are unit-vector components times this."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Vectors of many memories, one below the other.

    `matrix` int8 (r, d); memory i owns the rows from `bounds[i]` to `bounds[i + 1]`; `bounds` int64 (n + 1,).
    """

    matrix: NDArray[np.int8]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, matrices: Sequence[NDArray[np.int8]], width: int) -> Rows:
        """Stack the memories' matrices, each (any number of rows, `width`); None of them needs to have a row."""
        bounds = np.zeros(len(matrices) + 1, dtype=np.int64)
        np.cumsum([len(matrix) for matrix in matrices], out=bounds[1:])
        filled = [matrix for matrix in matrices if len(matrix)]
        stacked = np.concatenate(filled) if filled else np.zeros((0, width), dtype=np.int8)
        return cls(stacked, bounds)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which memories have any row, shape (n,)."""
        return np.diff(self.bounds) > 0


def best_rows(rows: Rows, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return, for each memory and query vector, the best cosine among the memory's rows.

    `queries` (q, d) unit norm; the result is (n, q), 0 for memories without rows.
    """
    present = rows.present
    best = np.zeros((len(present), len(queries)), dtype=np.float32)
    if present.any() and len(queries):
        similar = rows.matrix.astype(np.float32) @ (queries.T / np.float32(INT8_SCALE))
        # Starts of the filled segments only: reduceat would read a neighbour's row for an empty one.
        best[present] = np.maximum.reduceat(similar, rows.bounds[:-1][present], axis=0)
    return best


def maxsim(rows: Rows, queries: NDArray[np.float32], weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the weighted mean over query tokens of their best cosine in each memory, shape (n,).

    `queries` (q, d) unit norm, `weights` (q,) non-negative, all equal when None.  0 for memories without rows, and for
    all when there is no query token or no weight.
    """
    return weighted_mean(best_rows(rows, queries), weights)


def weighted_mean(best: NDArray[np.float32], weights: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the weighted mean of each memory's best cosines (n, q) over the query tokens, shape (n,)."""
    if weights is None:
        weights = np.ones(best.shape[1], dtype=np.float32)
    total = float(weights.sum())
    if total <= 0:
        return np.zeros(len(best), dtype=np.float32)
    return (best @ (weights / np.float32(total))).astype(np.float32)


def reaching(
    best: NDArray[np.float32], previous: NDArray[np.int64], following: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return each memory's best cosines (n, q) when its direct neighbours may answer query tokens too, a little less.

    In a conversation half of what a question names was said in the turn before.  `previous` and `following` (n,) are
    positions of the neighbours, ABSENT for none.
    """
    reached = best.copy()
    for neighbours in (previous, following):
        has = neighbours != ABSENT
        reached[has] = np.maximum(reached[has], np.float32(REACH) * best[neighbours[has]])
    return reached

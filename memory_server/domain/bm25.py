"""BM25 from stored term counts: the keyword leg without an index.

Formulas: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); the idf with 1 inside
the logarithm, which is never negative, is the one the index uses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

K1 = 1.2
B = 0.75


def idf(rows: int, frequencies: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return ln(1 + (N - n + .5) / (n + .5)) for each term, shape of `frequencies`.

    `rows` is the number of memories, `frequencies` in how many of them each term occurs.  A frequency above `rows`
    (statistics are kept in batches and may lag) counts as `rows`.
    """
    known = np.minimum(frequencies, rows).astype(np.float64)
    weights: NDArray[np.float64] = np.log1p((rows - known + 0.5) / (known + 0.5))
    return weights


def bm25(
    counts: NDArray[np.integer],
    lengths: NDArray[np.integer],
    weights: NDArray[np.floating],
    mean_length: float,
    *,
    k1: float = K1,
    b: float = B,
) -> NDArray[np.float32]:
    """Return the BM25 score of each memory, shape (n,).

    `counts` (n, q) is how often each query term occurs in each memory, `lengths` (n,) the number of all terms of each,
    `weights` (q,) the idf times how often the query repeats the term.  A `mean_length` of 0 switches the length
    normalisation off.
    """
    frequency = counts.astype(np.float64)
    relative = lengths.astype(np.float64) / mean_length if mean_length > 0 else np.ones(len(lengths))
    norm = k1 * (1.0 - b + b * relative)
    saturated = frequency * (k1 + 1.0) / (frequency + norm[:, None])
    # Where neither a count nor a norm is left (an empty memory with b = 1), nothing matches.
    matched: NDArray[np.float64] = np.where(frequency > 0, saturated, 0.0) @ weights
    return matched.astype(np.float32)

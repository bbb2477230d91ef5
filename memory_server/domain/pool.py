"""What the ranking sees: the pool of candidates and the query, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memory_server.domain.late_interaction import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All candidates of one recall, every array in the order of `ids`.

    Every member brings every leg's raw material, whichever leg proposed it: a leg that counts as 0 for those it did
    not propose makes the fused order worse than any leg alone.
    """

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    """Dense vectors (n, d), unit norm; rows of zeros for members without one."""
    embedded: NDArray[np.bool_]
    """Which members have a dense vector, (n,)."""
    sentences: Rows
    """Sentence vectors (·, d) int8; a member without any is judged by its dense vector."""
    tokens: Rows
    """Token vectors (·, t) int8 for late interaction."""
    keyword: NDArray[np.float32]
    """BM25 scores (n,), computed from stored terms for all members alike."""
    actor_match: NDArray[np.float32]
    """1 the actor named, 0 another, .5 unknown or none named, (n,)."""
    date_match: NDArray[np.float32] | None
    """Agreement with the date named, in [0, 1], (n,); None when the query names none."""
    is_question: NDArray[np.bool_]
    """Which members end by asking, (n,)."""
    sessions: NDArray[np.int64]
    """Codes of the members' sessions, (n,); -1 for none."""
    sequences: NDArray[np.int64]
    """Places in the session, (n,); anything where there is no session."""
    exact: NDArray[np.bool_]
    """Which members the query names by id, key, coordinate or verbatim text, (n,)."""
    first_person: NDArray[np.bool_] | None = None
    """Which members speak of their speaker, (n,); None switches the signal off."""
    tells_time: NDArray[np.bool_] | None = None
    """Which members hold an expression of time, (n,); None unless the query asks for a time."""
    options: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Signals of the bounded options by name (recency, importance, confidence, graph), (n,) in [0, 1], NaN unknown."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class QueryFeatures:
    """The query as arrays; a missing vector or no tokens switch their legs off."""

    vector: NDArray[np.float32] | None
    """Dense vector (d,), unit norm; None when the embedder did not answer in time."""
    tokens: NDArray[np.float32]
    """Token vectors (q, t), unit norm; no rows switch late interaction off."""
    token_weights: NDArray[np.float32] | None = None
    """Rarity (idf) of the tokens (q,), whose square root weighs them; None weighs them equally."""

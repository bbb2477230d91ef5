"""Novelty: how unlike everything present an observation is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ABSENT = np.float32(-2.0)
"""Stands for the cosine to an empty slot: below every real one."""


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return rows of unit length as they are stored, in float16; a zero row stays zero and is like nothing.

    All likeness is computed from the stored form, so that a restart changes no decision.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    lengths[lengths == 0.0] = 1.0
    narrow: NDArray[np.float16] = (vectors / lengths[:, None]).astype(np.float16)
    return narrow


def novelty_of(best_cosine: float) -> float:
    """Return 1 − the largest cosine to a present item, within [0, 1]; `ABSENT` means that nothing is present."""
    return min(1.0, max(0.0, 1.0 - best_cosine)) if best_cosine > -1.5 else 1.0

"""Token vectors: what late interaction (MaxSim) compares, small enough to keep for every memory.

A token's vector is its last hidden state, made unit, projected to 64 dimensions by a principal component analysis
fitted on the model's own vocabulary, and made unit again.  Of a long text only the 64 rarest tokens are kept: measured
on long messages this ranks far better than keeping all, because a long text otherwise has a fair match for any query
token.  How rare a token is comes from its rank in the vocabulary unless the caller knows better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soma_contract.embedders.base import MAX_TOKENS, TOKEN_DIMENSION, Idf, unit_rows
from soma_contract.text.stop_words import stop_words

TOKENS_VERSION = 1
"""Part of the profile's revision: raise it when token vectors are no longer comparable with those made before."""

_FIRST_WORD = 1_000
"""Below this id the vocabulary holds markers, placeholders and single characters."""
_WORDS_A_LINE, _LINES = 8, 1_200
_OCCURRENCES = 3
_GOLDEN = 0.6180339887498949

Hidden = Callable[[Sequence[Sequence[int]]], list[NDArray[np.float32]]]
"""Gives the last hidden states of rows of pieces: one float32 (pieces, 384) a row."""


class TokenProjection:
    """The map from hidden states to token vectors: subtract the mean, project, make unit."""

    def __init__(self, mean: NDArray[np.float32], basis: NDArray[np.float32]) -> None:
        self.mean = mean
        self.basis = basis

    def __call__(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project hidden states, float32 (n, 384), to unit rows, float32 (n, 64)."""
        return unit_rows((unit_rows(hidden) - self.mean) @ self.basis)

    def packed(self) -> NDArray[np.float32]:
        """Both parts in one array, float32 (65, 384), for a file."""
        return np.vstack([self.mean[None, :], self.basis.T])

    @classmethod
    def unpacked(cls, rows: NDArray[np.float32]) -> TokenProjection:
        """The projection that `packed` gave."""
        return cls(rows[0], np.ascontiguousarray(rows[1:].T))


def fit_projection(hidden: Hidden, vocabulary: Mapping[str, int]) -> TokenProjection:
    """Fit the projection on lines of vocabulary words; `hidden` should be exact, so that machines agree on the axes.

    The words follow each other by golden-section steps through the vocabulary, so that a line mixes common and rare
    ones and the same lines come out everywhere.
    """
    words = sorted(
        number
        for word, number in vocabulary.items()
        if number >= _FIRST_WORD and len(word) > 3 and word.isascii() and word.isalpha()
    )
    stride = int(len(words) * _GOLDEN) | 1
    walk = [words[step * stride % len(words)] for step in range(_WORDS_A_LINE * _LINES)]
    first, last = vocabulary["[CLS]"], vocabulary["[SEP]"]
    lines = [[first, *walk[at : at + _WORDS_A_LINE], last] for at in range(0, len(walk), _WORDS_A_LINE)]
    states = unit_rows(np.concatenate([rows[1:-1] for rows in hidden(lines)])).astype(np.float64)
    mean = states.mean(axis=0)
    centred = states - mean
    # Eigenvalues come in ascending order.
    _, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    basis = axes[:, ::-1][:, :TOKEN_DIMENSION]
    # An eigenvector's sign is arbitrary: fixed here, or two machines could point opposite ways.
    largest = basis[np.abs(basis).argmax(axis=0), np.arange(TOKEN_DIMENSION)]
    return TokenProjection(mean.astype(np.float32), (basis * np.sign(largest)).astype(np.float32))


def content_mask(vocabulary: Mapping[str, int]) -> NDArray[np.bool_]:
    """Mark the token ids that carry content: not markers, punctuation or stop words."""
    stop = stop_words("english")
    mask = np.zeros(max(vocabulary.values()) + 1, np.bool_)
    for word, number in vocabulary.items():
        bare = word.removeprefix("##")
        marker = word.startswith("[") and word.endswith("]")
        mask[number] = not marker and word not in stop and any(char.isalnum() for char in bare)
    return mask


def vocabulary_idf(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Estimate how rare tokens are from their ids: the vocabulary is ordered by frequency, which falls as 1/rank."""
    weights: NDArray[np.float32] = np.log(np.maximum(ids - _FIRST_WORD, 1) + 1.0).astype(np.float32)
    return weights


def kept_tokens(ids: NDArray[np.int32], idf: Idf | None = None, limit: int = MAX_TOKENS) -> NDArray[np.intp]:
    """Choose at most `limit` tokens, the rarest; their indices in text order.

    A piece's first occurrences, each with its own context, come before further repetitions of any: else one refrain
    could take all the room.
    """
    if len(ids) <= limit:
        return np.arange(len(ids))
    by_id = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[by_id], prepend=-1))
    occurrence = np.empty(len(ids), np.int64)
    occurrence[by_id] = np.arange(len(ids)) - np.repeat(starts, np.diff(starts, append=len(ids)))
    weights = (idf or vocabulary_idf)(ids)
    return np.sort(np.lexsort((np.arange(len(ids)), -weights, occurrence >= _OCCURRENCES))[:limit])

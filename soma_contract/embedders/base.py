"""What an embedder is, and what it gives for a text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

MAX_SENTENCES = 40
MAX_TOKENS = 64
TOKEN_DIMENSION = 64
INT8_SCALE = 127.0
"""An int8 row is a unit vector times this, rounded: dividing a dot product of two rows by its square gives a cosine."""

Idf = Callable[[NDArray[np.int32]], NDArray[np.float32]]
"""Weights of token ids, same shape: how rare each is among the memories at hand; decides which tokens are kept."""


class Priority(IntEnum):
    """Who waits for an embedding: a caller at a prompt, or the indexer."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True, slots=True)
class EmbeddingProfile:
    """Which vectors these are; two vectors can be compared only if their profiles are equal."""

    name: str
    """The model's id, e.g. ``all-MiniLM-L6-v2``."""
    dimension: int
    revision: str
    """A hash of the weights and of everything else that decides a vector; empty where a remote side hides it."""
    has_tokens: bool = False
    """Whether token vectors are given when asked for."""

    @property
    def key(self) -> str:
        """The profile as one string, for rows, collections and cache keys: ``name/dimension@revision``."""
        return f"{self.name}/{self.dimension}" + (f"@{self.revision}" if self.revision else "")


def _no_rows(width: int) -> NDArray[np.int8]:
    return np.zeros((0, width), np.int8)


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The vectors of one text.

    ``dense`` float32 (d,), unit norm.  Asked for with tokens: ``sentences`` int8 (n ≤ 40, d), one row a sentence (a
    text of one sentence has one row, its dense vector), and ``tokens`` int8 (m ≤ 64, 64) with ``token_ids`` int32
    (m,), in text order.  Rows are unit vectors times 127.  Otherwise these three have no rows.
    """

    dense: NDArray[np.float32]
    sentences: NDArray[np.int8] = field(default_factory=lambda: _no_rows(0))
    tokens: NDArray[np.int8] = field(default_factory=lambda: _no_rows(TOKEN_DIMENSION))
    token_ids: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))


class Embedder(Protocol):
    """Something that embeds texts; enter it before use, leave it to free its threads and connections."""

    @property
    def profile(self) -> EmbeddingProfile:
        """Which vectors it gives; known once it is entered."""
        ...

    async def embed(
        self,
        texts: Sequence[str],
        *,
        with_tokens: bool = False,
        deadline_s: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
        idf: Idf | None = None,
    ) -> list[Embedding]:
        """Embed texts, in order; the same text gives the same vectors whatever it is embedded together with.

        ``deadline_s`` is how long this may take.  ``idf`` chooses the tokens kept of a long text; without it the
        first are.  Raises BudgetSpentError when the deadline passes, OverloadedError when too much is queued and
        ComponentUnavailableError when the model cannot be reached.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def unit_rows(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale each row (last axis) to unit norm; a row of zeros becomes the first axis, so a norm is always 1."""
    wide = rows.astype(np.float64)
    # Two steps: squaring could overflow or vanish where the values themselves are fine.
    peak = np.abs(wide).max(axis=-1, keepdims=True, initial=0.0)
    wide = np.divide(wide, peak, out=np.zeros_like(wide), where=peak > 0)
    norm = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    if wide.shape[-1]:
        wide[..., 0] = np.where(norm[..., 0] > 0, wide[..., 0], 1.0)
    unit: NDArray[np.float32] = (wide / np.where(norm > 0, norm, 1.0)).astype(np.float32)
    return unit


def quantised(rows: NDArray[np.float32]) -> NDArray[np.int8]:
    """Store unit rows as int8: times 127, rounded."""
    steps: NDArray[np.int8] = np.rint(rows * INT8_SCALE).clip(-INT8_SCALE, INT8_SCALE).astype(np.int8)
    return steps


def embedding_key(profile: EmbeddingProfile, text: str, actor_names: Iterable[str] = ()) -> str:
    """Name an embedding by what decides it: profile, text and the actor names cut out of it; 32 hex characters."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (profile.key, text, *sorted(set(actor_names))):
        raw = part.encode("utf-8", "surrogatepass")
        # Lengths in front, so that no two lists of parts run together to the same bytes.
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()

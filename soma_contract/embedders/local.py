"""The default embedder: all-MiniLM-L6-v2 on this machine's CPU, from an installed wheel, without torch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from soma_contract.embedders.base import (
    MAX_SENTENCES,
    TOKEN_DIMENSION,
    Embedding,
    EmbeddingProfile,
    Idf,
    Priority,
    quantised,
    unit_rows,
)
from soma_contract.embedders.batching import Batcher
from soma_contract.embedders.encoder import Encoder, open_session
from soma_contract.embedders.graph import GRAPH_VERSION, HIDDEN, build_model
from soma_contract.embedders.model_cache import cached_model, default_cache_dir
from soma_contract.embedders.token_vectors import (
    TOKENS_VERSION,
    TokenProjection,
    content_mask,
    fit_projection,
    kept_tokens,
)
from soma_contract.embedders.wheel import MODEL_NAME, model_files
from soma_contract.text.sentences import split_sentences

_MODEL, _PROJECTION = "model.onnx", "projection.npy"


class _Wanted(NamedTuple):
    text: str
    with_tokens: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """What a worker thread computes; of the tokens, which to keep is chosen later, as each caller weighs them."""

    dense: NDArray[np.float32]
    sentences: NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, HIDDEN), np.int8))
    ids: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    tokens: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, TOKEN_DIMENSION), np.float32))


class LocalEmbedder:
    """Embeds on worker threads of this process.

    ``cache_dir`` holds the built model (default: `default_cache_dir`); the first start on a machine builds it in some
    seconds.  ``workers`` threads embed in bulk, one more is kept for callers at a prompt.
    Without ``sentences`` a text is read once instead of twice, and its dense vector stands for its sentences.
    Entering raises ModelMissingError when the model's wheel is not installed.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        *,
        workers: int = 1,
        max_pending: int = 1_024,
        sentences: bool = True,
    ) -> None:
        self._cache_dir = cache_dir or default_cache_dir()
        self._workers, self._max_pending = workers, max_pending
        self._sentences = sentences
        self._profile: EmbeddingProfile | None = None
        self._stack = AsyncExitStack()

    @property
    def profile(self) -> EmbeddingProfile:
        """Model, dimension and revision of its vectors; raises RuntimeError before it is entered."""
        if self._profile is None:
            raise RuntimeError("enter the embedder before asking for its profile")
        return self._profile

    async def __aenter__(self) -> Self:
        revision = await asyncio.to_thread(self._load)
        self._batcher = await self._stack.enter_async_context(
            Batcher(
                self._work,
                _weight,
                workers=self._workers,
                max_pending=self._max_pending,
                name="embed",
            )
        )
        self._profile = EmbeddingProfile(MODEL_NAME, HIDDEN, revision, has_tokens=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def embed(
        self,
        texts: Sequence[str],
        *,
        with_tokens: bool = False,
        deadline_s: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
        idf: Idf | None = None,
    ) -> list[Embedding]:
        """Embed texts, in order; see `Embedder.embed`."""
        wanted = [_Wanted(text, with_tokens) for text in texts]
        results = await self._batcher.results(wanted, priority=priority, deadline_s=deadline_s)
        return [_chosen(result, idf) if with_tokens else Embedding(result.dense) for result in results]

    def _load(self) -> str:
        """Load the model, building it first where it is not cached; returns its revision."""
        digest = model_files().digest()
        name = f"{MODEL_NAME}-{digest[:16]}-{GRAPH_VERSION}.{TOKENS_VERSION}"
        directory = cached_model(self._cache_dir, name, _build)
        self._encoder = Encoder(open_session(directory / _MODEL))
        self._projection = TokenProjection.unpacked(np.load(directory / _PROJECTION))
        self._content = content_mask(self._encoder.vocabulary)
        return f"{digest[:12]}.{TOKENS_VERSION}"

    def _work(self, wanted: Sequence[_Wanted]) -> list[_Encoded]:
        """Compute what is wanted for each text; runs in a worker thread."""
        plain = [index for index, one in enumerate(wanted) if not one.with_tokens]
        results: dict[int, _Encoded] = {}
        dense = unit_rows(self._encoder.dense([self._encoder.pieces(wanted[index].text) for index in plain]))
        for index, row in zip(plain, dense, strict=True):
            results[index] = _Encoded(row)
        rich = [index for index, one in enumerate(wanted) if one.with_tokens]
        results.update(zip(rich, self._with_tokens([wanted[index].text for index in rich]), strict=True))
        return [results[index] for index in range(len(wanted))]

    def _with_tokens(self, texts: Sequence[str]) -> list[_Encoded]:
        sentences = [split_sentences(text, MAX_SENTENCES) if self._sentences else [] for text in texts]
        # The vector of a text of one sentence is its sentence's.
        apart = [pieces if len(pieces) > 1 else [] for pieces in sentences]
        rows = iter(unit_rows(self._encoder.dense([self._encoder.pieces(one) for part in apart for one in part])))
        windows = [self._encoder.windows(text) for text in texts]
        dense, hidden = self._encoder.hidden([window for part in windows for window in part])
        results, at = [], 0
        for part, own in zip(apart, windows, strict=True):
            ids = np.array([piece for window in own for piece in window[1:-1]], np.int32)
            states = np.concatenate([hidden[at + index][1:-1] for index in range(len(own))])
            # Nothing but stop words ("who are you?") is better compared by those than by nothing.
            content = self._content[ids]
            kept = content if content.any() else np.ones(len(ids), np.bool_)
            whole = unit_rows(dense[at])
            own_sentences = np.array([next(rows) for _ in part]) if part else whole[None, :]
            results.append(_Encoded(whole, quantised(own_sentences), ids[kept], self._projection(states[kept])))
            at += len(own)
        return results


def _weight(wanted: _Wanted) -> int:
    """Characters to read: with tokens, a text is read once whole and once by sentences."""
    return len(wanted.text) * (2 if wanted.with_tokens else 1)


def _chosen(encoded: _Encoded, idf: Idf | None) -> Embedding:
    kept = kept_tokens(encoded.ids, idf)
    return Embedding(encoded.dense, encoded.sentences, quantised(encoded.tokens[kept]), encoded.ids[kept])


def _build(directory: Path) -> None:
    from safetensors.numpy import load_file

    weights = load_file(model_files().weights)
    (directory / _MODEL).write_bytes(build_model(weights))
    exact = Encoder(open_session(build_model(weights, quantise=False)))
    projection = fit_projection(lambda rows: exact.hidden(rows)[1], exact.vocabulary)
    np.save(directory / _PROJECTION, projection.packed())

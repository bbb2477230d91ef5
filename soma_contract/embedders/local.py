"""The default embedder: all-MiniLM-L6-v2 on this machine's CPU, from an installed wheel, without torch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from soma_contract.embedders.base import Embedding, EmbeddingProfile, Idf, Priority, unit_rows
from soma_contract.embedders.batching import Batcher
from soma_contract.embedders.encoder import Encoder, open_session
from soma_contract.embedders.graph import GRAPH_VERSION, HIDDEN, build_model
from soma_contract.embedders.model_cache import cached_model, default_cache_dir
from soma_contract.embedders.wheel import MODEL_NAME, model_files


class _Wanted(NamedTuple):
    text: str
    with_tokens: bool


class LocalEmbedder:
    """Embeds on worker threads of this process.

    ``cache_dir`` holds the built model (default: `default_cache_dir`); the first start on a machine builds it in some
    seconds.  ``workers`` threads embed in bulk, one more is kept for callers at a prompt.
    Entering raises ModelMissingError when the model's wheel is not installed.
    """

    def __init__(self, cache_dir: Path | None = None, *, workers: int = 1, max_pending: int = 1_024) -> None:
        self._cache_dir = cache_dir or default_cache_dir()
        self._workers, self._max_pending = workers, max_pending
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
                lambda wanted: len(wanted.text),
                workers=self._workers,
                max_pending=self._max_pending,
                name="embed",
            )
        )
        self._profile = EmbeddingProfile(MODEL_NAME, HIDDEN, revision, has_tokens=False)
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
        return await self._batcher.results(wanted, priority=priority, deadline_s=deadline_s)

    def _load(self) -> str:
        """Load the model, building it first where it is not cached; returns its revision."""
        digest = model_files().digest()
        directory = cached_model(self._cache_dir, f"{MODEL_NAME}-{digest[:16]}-{GRAPH_VERSION}", _build)
        self._encoder = Encoder(open_session(directory / "model.onnx"))
        return digest[:12]

    def _work(self, wanted: Sequence[_Wanted]) -> list[Embedding]:
        rows = [self._encoder.pieces(one.text) for one in wanted]
        return [Embedding(dense) for dense in unit_rows(self._encoder.dense(rows))]


def _build(directory: Path) -> None:
    from safetensors.numpy import load_file

    (directory / "model.onnx").write_bytes(build_model(load_file(model_files().weights)))

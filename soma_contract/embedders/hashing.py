"""An embedder of hashed words: no model, the same vectors everywhere, no idea of meaning.  For tests alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Self

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
from soma_contract.embedders.token_vectors import kept_tokens
from soma_contract.text.sentences import split_sentences
from soma_contract.text.stop_words import stop_words

_WORD = re.compile(r"[^\W_]+")


class HashingRefusedError(RuntimeError):
    """The hashing embedder finds words, not meaning: it is for tests; set SOMA_EMBEDDER to 'local' or 'openai'."""

    def __init__(self) -> None:
        super().__init__(f"{type(self).__doc__} (Tests set SOMA_TESTING=1.)")


class HashingEmbedder:
    """Adds up a signed unit axis for each word; raises HashingRefusedError unless ``SOMA_TESTING=1`` is set."""

    def __init__(self, dimension: int = 384) -> None:
        if os.environ.get("SOMA_TESTING") != "1":
            raise HashingRefusedError
        self._profile = EmbeddingProfile("hashing", dimension, revision="1", has_tokens=True)

    @property
    def profile(self) -> EmbeddingProfile:
        """Its dimension and format."""
        return self._profile

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

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
        embeddings = []
        for text in texts:
            # Lets others run between texts, as an embedder that works elsewhere would.
            await asyncio.sleep(0)
            embeddings.append(self._with_tokens(text, idf) if with_tokens else Embedding(self._dense(text)))
        return embeddings

    def _dense(self, text: str) -> NDArray[np.float32]:
        sums = np.zeros(self._profile.dimension, np.float32)
        for word in _WORD.findall(text.lower()):
            number = int.from_bytes(_digest(word)[:8], "little")
            sums[number // 2 % len(sums)] += 1 if number % 2 else -1
        return unit_rows(sums)

    def _with_tokens(self, text: str, idf: Idf | None) -> Embedding:
        dense = self._dense(text)
        sentences = split_sentences(text, MAX_SENTENCES)
        rows = np.array([self._dense(one) for one in sentences]) if len(sentences) > 1 else dense[None, :]
        stop = stop_words("english")
        words = _WORD.findall(text.lower())
        digests = [_digest(word) for word in words if word not in stop] or [_digest(word) for word in words]
        ids = np.array([int.from_bytes(digest[:4], "little") >> 1 for digest in digests], np.int32)
        steps = np.array([list(digest) for digest in digests], np.float32).reshape(-1, TOKEN_DIMENSION) - 127.5
        kept = kept_tokens(ids, idf)
        return Embedding(dense, quantised(rows), quantised(unit_rows(steps[kept])), ids[kept])


def _digest(word: str) -> bytes:
    return hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=TOKEN_DIMENSION).digest()

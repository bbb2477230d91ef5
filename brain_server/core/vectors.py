"""Vectors of texts, for working memory and what is compared with it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soma_contract.embedders.base import Embedder, Priority

Array = NDArray[np.float32]

_KEPT = 2_048


class TextVectors:
    """Embeds texts, the last ones only once: an agent observes a message and then recalls with it."""

    def __init__(self, embedder: Embedder, kept: int = _KEPT) -> None:
        self._embedder = embedder
        self._most = kept
        self._kept: OrderedDict[bytes, Array] = OrderedDict()
        """By a hash of the text: texts may be long."""

    @property
    def dimension(self) -> int:
        """Components of a vector of the tenant's embedding profile."""
        return self._embedder.profile.dimension

    async def of(
        self, texts: Sequence[str], *, deadline_s: float | None = None, priority: Priority = Priority.INTERACTIVE
    ) -> list[Array]:
        """Return one vector of unit length a text, in order; raises what `Embedder.embed` raises."""
        names = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        found = {name: self._kept[name] for name in names if name in self._kept}
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in found}
        if missing:
            embedded = await self._embedder.embed([*missing.values()], deadline_s=deadline_s, priority=priority)
            found.update({name: each.dense for name, each in zip(missing, embedded, strict=True)})
        for name, vector in found.items():
            self._kept[name] = vector
            self._kept.move_to_end(name)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return [found[name] for name in names]

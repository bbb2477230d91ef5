"""Embedding of memories and queries: names cut out, cached by content, computed off the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from memory_server.core.vector_codec import packed, unpacked
from memory_server.ports import Cache, Embedder, IndexJob, StoredVectors
from soma_contract.embedders.base import TOKEN_DIMENSION, EmbeddingProfile, Priority, embedding_key
from soma_contract.embedders.base import Embedding as Embedded
from soma_contract.memory import Memory
from soma_contract.tenant import Tenant
from soma_contract.text.actors import without_names


class ActorNames(Protocol):
    """Which actors a namespace knows; their names are cut out of texts before embedding."""

    async def names(self, tenant: Tenant, namespace: str) -> tuple[str, ...]:
        """Return the known actor names of a namespace, sorted."""
        ...


@dataclass(slots=True)
class Embedding:
    """Embeds memories and queries through the cache."""

    embedder: Embedder
    cache: Cache
    actors: ActorNames
    _process: dict[bytes, StoredVectors] = field(default_factory=dict)
    process_capacity: int = 2_048
    other_models: frozenset[str] = frozenset()
    """Models of the server's other embedders: what is supplied under their names is embedded anew."""

    @property
    def profile(self) -> EmbeddingProfile:
        """What these vectors are; vectors of different profiles are never compared."""
        return self.embedder.profile

    async def of_jobs(self, jobs: Sequence[IndexJob]) -> list[tuple[IndexJob, StoredVectors]]:
        """Embed the claimed memories in one batch; deleted ones are left out."""
        live = [job for job in jobs if job.memory is not None]
        given = {position: self._supplied(job.memory) for position, job in enumerate(live) if job.memory is not None}
        missing = [position for position, vectors in given.items() if vectors is None]
        texts = [await self._embeddable(live[position].tenant, live[position].memory) for position in missing]
        made = dict(zip(missing, await self.of_texts(texts, urgent=False), strict=True)) if texts else {}
        return [(job, given[position] or made[position]) for position, job in enumerate(live)]

    async def of_memories(
        self, tenant: Tenant, memories: Sequence[Memory], *, deadline_s: float | None = None
    ) -> list[StoredVectors]:
        """Embed memories that a recall needs now."""
        texts = [await self._embeddable(tenant, memory) for memory in memories]
        return await self.of_texts(texts, urgent=True, deadline_s=deadline_s)

    async def of_texts(
        self, texts: Sequence[str], *, urgent: bool, deadline_s: float | None = None
    ) -> list[StoredVectors]:
        """Embed texts; urgent ones overtake the indexer's batches."""
        keys = [embedding_key(self.profile, text).encode() for text in texts]
        found: dict[bytes, StoredVectors] = {key: self._process[key] for key in keys if key in self._process}
        unknown = [key for key in dict.fromkeys(keys) if key not in found]
        if unknown:
            cached = await self.cache.get_embeddings(unknown)
            for key, value in zip(unknown, cached, strict=True):
                vectors = unpacked(value, self.profile.dimension) if value else None
                if vectors is not None:
                    found[key] = vectors
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            priority = Priority.INTERACTIVE if urgent else Priority.BULK
            embedded = await self.embedder.embed(
                list(missing.values()), with_tokens=True, deadline_s=deadline_s, priority=priority
            )
            made = {key: _stored(one) for key, one in zip(missing, embedded, strict=True)}
            found.update(made)
            await self.cache.put_embeddings({key: packed(vectors) for key, vectors in made.items()})
        if urgent:
            self._keep(found)
        return [found[key] for key in keys]

    def _supplied(self, memory: Memory) -> StoredVectors | None:
        """The vectors a writer supplied, if they can be compared with those made here."""
        if memory.embedding_model in self.other_models:
            return None
        vectors = supplied(memory)
        return vectors if vectors is not None and vectors.dense.size == self.profile.dimension else None

    async def _embeddable(self, tenant: Tenant, memory: Memory | None) -> str:
        assert memory is not None
        names = await self.actors.names(tenant, memory.namespace)
        return without_names(memory.text, names) or memory.text

    def _keep(self, found: dict[bytes, StoredVectors]) -> None:
        self._process.update(found)
        while len(self._process) > self.process_capacity:
            del self._process[next(iter(self._process))]


def supplied(memory: Memory) -> StoredVectors | None:
    """The vectors of a memory whose writer supplied one: dense alone; None where there is none."""
    if memory.embedding is None:
        return None
    dense = memory.embedding.array
    return StoredVectors(
        dense, np.zeros((0, dense.size), np.int8), np.zeros((0, TOKEN_DIMENSION), np.int8), np.zeros(0, np.int32)
    )


def _stored(embedded: Embedded) -> StoredVectors:
    return StoredVectors(embedded.dense, embedded.sentences, embedded.tokens, embedded.token_ids)

"""Turning text into vectors, behind one protocol: a local model, an OpenAI-compatible endpoint, hashing for tests.

Importing this package loads no model and no runtime; `factory.build_embedder` does, when asked for one.
"""

from soma_contract.embedders.base import (
    TOKEN_DIMENSION,
    Embedder,
    Embedding,
    EmbeddingProfile,
    Idf,
    Priority,
    embedding_key,
)

__all__ = [
    "TOKEN_DIMENSION",
    "Embedder",
    "Embedding",
    "EmbeddingProfile",
    "Idf",
    "Priority",
    "embedding_key",
]

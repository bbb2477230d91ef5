"""The local embedder, with the real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from soma_contract.embedders import Priority
from soma_contract.embedders.local import LocalEmbedder

LONG = " ".join(
    f"On day {day} the crew counted {day * 7} crates of oranges in the northern harbour." for day in range(60)
)


@pytest.fixture(scope="module")
async def local() -> AsyncIterator[LocalEmbedder]:
    async with LocalEmbedder() as embedder:
        yield embedder


async def test_texts_that_mean_the_same_are_closer_than_others(local: LocalEmbedder) -> None:
    cat, feline, shares = await local.embed(
        ["The cat sat on the mat.", "A feline rested on the rug.", "Share prices fell sharply on Monday."]
    )
    assert cat.dense @ feline.dense > 0.5
    assert cat.dense @ shares.dense < 0.2


async def test_a_text_gets_the_same_vector_in_any_batch(local: LocalEmbedder) -> None:
    texts = ["Who fed the dog?", "42", "Größe, naïve, 東京 — mixed scripts.", "a " * 90, LONG]
    together = await local.embed(texts, priority=Priority.BULK)
    for text, batched in zip(texts, together, strict=True):
        (alone,) = await local.embed([text])
        np.testing.assert_allclose(alone.dense, batched.dense, atol=1e-5)


async def test_concurrent_calls_share_the_model_and_get_their_own_vectors(local: LocalEmbedder) -> None:
    texts = [f"note number {number} about the garden" for number in range(24)]
    apart = await asyncio.gather(*(local.embed([text]) for text in texts))
    together = await local.embed(texts)
    for (one,), same in zip(apart, together, strict=True):
        np.testing.assert_allclose(one.dense, same.dense, atol=1e-5)

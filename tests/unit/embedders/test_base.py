"""What every embedder promises: unit vectors, comparable rows, keys that tell everything apart."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from soma_contract.embedders import Embedder, EmbeddingProfile, embedding_key
from soma_contract.embedders.base import INT8_SCALE, quantised, unit_rows
from soma_contract.embedders.hashing import HashingEmbedder
from soma_contract.embedders.local import LocalEmbedder
from soma_contract.embedders.openai import OpenAIEmbedder
from tests.unit.embedders.http_endpoint import endpoint

PROFILE = EmbeddingProfile("m", 8, "r1")


@pytest.fixture(params=["local", "openai", "hashing"], scope="module")
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    match request.param:
        case "local":
            async with LocalEmbedder() as local:
                yield local
        case "openai":
            async with endpoint() as served, OpenAIEmbedder(served.base_url, "m", dimensions=8) as remote:
                yield remote
        case _:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SOMA_TESTING", "1")
                hashing = HashingEmbedder()
            yield hashing


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), min_size=1, max_size=4))
async def test_vector_norm_invariant(embedder: Embedder, texts: list[str]) -> None:
    for embedding in await embedder.embed(texts, with_tokens=True):
        assert embedding.dense.shape == (embedder.profile.dimension,)
        assert embedding.dense.dtype == np.float32
        assert abs(float(np.linalg.norm(embedding.dense.astype(np.float64))) - 1) < 1e-5
        assert len(embedding.tokens) == len(embedding.token_ids) <= 64
        assert len(embedding.sentences) <= 40
        for rows in (embedding.tokens, embedding.sentences):
            assert rows.dtype == np.int8
            np.testing.assert_allclose(np.linalg.norm(rows / INT8_SCALE, axis=1), 1, atol=0.06)


async def test_nothing_to_embed_gives_nothing(embedder: Embedder) -> None:
    assert await embedder.embed([]) == []


async def test_the_longest_text_allowed_is_embedded(embedder: Embedder) -> None:
    (embedding,) = await embedder.embed(["memory " * 18_000], with_tokens=True)
    assert embedding.dense.shape == (embedder.profile.dimension,)


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_rows_of_any_size_become_unit(rows: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(np.linalg.norm(unit_rows(rows).astype(np.float64), axis=1), 1, atol=1e-6)


def test_a_row_of_zeros_becomes_the_first_axis() -> None:
    np.testing.assert_array_equal(unit_rows(np.zeros((1, 3), np.float32)), [[1, 0, 0]])


@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 384]))
def test_int8_rows_keep_cosines(seed: int, width: int) -> None:
    unit = unit_rows(np.random.default_rng(seed).normal(size=(2, width)))
    steps = quantised(unit).astype(np.float64)
    assert abs(steps[0] @ steps[1] / INT8_SCALE**2 - unit[0].astype(np.float64) @ unit[1]) < 0.03


def test_a_key_tells_profile_text_and_names_apart() -> None:
    keys = [
        embedding_key(PROFILE, "text"),
        embedding_key(EmbeddingProfile("m", 8, "r2"), "text"),
        embedding_key(EmbeddingProfile("m", 9, "r1"), "text"),
        embedding_key(PROFILE, "texts"),
        embedding_key(PROFILE, "text", ["ann"]),
        embedding_key(PROFILE, "text", ["a", "nn"]),
        embedding_key(PROFILE, "textann"),
    ]
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_depend_on_the_order_of_names() -> None:
    assert embedding_key(PROFILE, "t", ["bo", "ann", "bo"]) == embedding_key(PROFILE, "t", ["ann", "bo"])

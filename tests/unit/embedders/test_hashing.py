"""The hashing embedder: only for tests, and good enough for them."""

from __future__ import annotations

import numpy as np
import pytest

from soma_contract.embedders.base import INT8_SCALE
from soma_contract.embedders.hashing import HashingEmbedder, HashingRefusedError


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> HashingEmbedder:
    monkeypatch.setenv("SOMA_TESTING", "1")
    return HashingEmbedder(128)


@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_it_is_refused_outside_tests(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SOMA_TESTING", raising=False)
    if value is not None:
        monkeypatch.setenv("SOMA_TESTING", value)
    with pytest.raises(HashingRefusedError, match="SOMA_EMBEDDER"):
        HashingEmbedder()


async def test_shared_words_make_texts_close(hashing: HashingEmbedder) -> None:
    boat, ship, rain = await hashing.embed(["the red boat sank", "a red boat", "heavy rain tomorrow"])
    assert boat.dense @ ship.dense > boat.dense @ rain.dense + 0.3


async def test_the_same_word_has_the_same_token_vector_everywhere(hashing: HashingEmbedder) -> None:
    first, second = await hashing.embed(["red boat", "the boat sank"], with_tokens=True)
    np.testing.assert_array_equal(first.tokens[1], second.tokens[0])
    assert first.token_ids[1] == second.token_ids[0]
    cosines = first.tokens.astype(np.float64) @ second.tokens.astype(np.float64).T / INT8_SCALE**2
    assert cosines[1, 0] == pytest.approx(1, abs=0.02)
    assert abs(cosines[0, 0]) < 0.5


async def test_sentences_have_rows_of_their_own(hashing: HashingEmbedder) -> None:
    (embedding,) = await hashing.embed(
        ["The red boat sank in the storm. Nobody was hurt in the night."], with_tokens=True
    )
    assert embedding.sentences.shape == (2, 128)

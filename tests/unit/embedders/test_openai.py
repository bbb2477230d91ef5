"""The OpenAI-compatible embedder against a real HTTP server."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from soma_contract.embedders import Embedder, Priority
from soma_contract.embedders.openai import MAX_INPUT_TOKENS, OpenAIEmbedder, Pace
from soma_contract.errors import BudgetSpentError, ComponentUnavailableError
from tests.unit.embedders.http_endpoint import Answer, Endpoint, embedding_answer, endpoint, vector_of

FAST = Pace(first_backoff_s=0.001, longest_backoff_s=0.002)


def unit(values: list[float]) -> np.ndarray[Any, Any]:
    array = np.array(values, np.float64)
    return array / np.linalg.norm(array)


async def test_vectors_come_back_in_order_and_of_unit_norm() -> None:
    async with endpoint() as served, OpenAIEmbedder(served.base_url, "m", dimensions=8) as embedder:
        embeddings = await embedder.embed(["one", "two", "one"])
    for text, embedding in zip(["one", "two", "one"], embeddings, strict=True):
        np.testing.assert_allclose(embedding.dense, unit(vector_of(text)), atol=1e-6)
        assert embedding.tokens.shape == (0, 64)


async def test_model_key_and_dimensions_are_sent() -> None:
    async with (
        endpoint() as served,
        OpenAIEmbedder(f"{served.base_url}/", "small", api_key="k1", dimensions=4) as embedder,
    ):
        await embedder.embed(["x"])
        assert embedder.profile.key == "small/4"
    assert served.asked == [{"model": "small", "input": ["x"], "encoding_format": "float", "dimensions": 4}]
    assert served.headers[0]["authorization"] == "Bearer k1"


async def test_the_dimension_is_learned_when_it_is_not_given() -> None:
    async with endpoint() as served, OpenAIEmbedder(served.base_url, "m") as embedder:
        assert embedder.profile.dimension == 8
        assert not embedder.profile.has_tokens


async def test_many_texts_go_in_batches_a_few_at_a_time() -> None:
    both = asyncio.Barrier(2)

    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        # Each request waits for a second one: only concurrent requests can be answered.
        await both.wait()
        return await embedding_answer(served, body)

    pace = Pace(batch_texts=10, bulk_requests=2)
    texts = [f"text {number}" for number in range(40)]
    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8, pace=pace) as embedder:
        embeddings = await embedder.embed(texts, priority=Priority.BULK)
    assert [len(body["input"]) for body in served.asked] == [10, 10, 10, 10]
    assert served.most_running == 2
    np.testing.assert_allclose(embeddings[39].dense, unit(vector_of("text 39")), atol=1e-6)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_endpoint_is_asked_again(status: int) -> None:
    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        if len(served.asked) < 3:
            return status, {"retry-after": "0"}, {"error": {"code": "busy"}}
        return await embedding_answer(served, body)

    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8, pace=FAST) as embedder:
        (embedding,) = await embedder.embed(["x"])
    assert len(served.asked) == 3
    np.testing.assert_allclose(embedding.dense, unit(vector_of("x")), atol=1e-6)


async def test_an_endpoint_that_stays_busy_is_unavailable_after_the_attempts() -> None:
    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        return 429, {}, {"error": {"code": "rate_limit_exceeded", "message": body["input"][0]}}

    pace = Pace(attempts=3, first_backoff_s=0.001)
    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8, pace=pace) as embedder:
        with pytest.raises(ComponentUnavailableError, match="429 rate_limit_exceeded") as caught:
            await embedder.embed(["a secret of some tenant"])
    assert len(served.asked) == 3
    assert caught.value.metadata == {"component": "embedder"}
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "setting"), [(401, "SOMA_EMBEDDER_API_KEY"), (404, "SOMA_EMBEDDER_MODEL"), (400, "400")]
)
async def test_a_refusal_is_not_repeated_and_names_the_setting(status: int, setting: str) -> None:
    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        return status, {}, b"<html>no</html>"

    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8) as embedder:
        with pytest.raises(ComponentUnavailableError, match=setting):
            await embedder.embed(["x"])
    assert len(served.asked) == 1


async def test_another_dimension_than_configured_is_refused() -> None:
    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        return await embedding_answer(served, body | {"dimensions": 6})

    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8) as embedder:
        with pytest.raises(ComponentUnavailableError, match="SOMA_EMBEDDER_DIMENSIONS"):
            await embedder.embed(["x"])


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        {"data": "?"},
        {"data": []},
        {"data": [{"index": 0, "embedding": [1.0, "x"]}]},
        b'{"data": [{"index": 0, "embedding": [NaN, 1.0, 1, 1, 1, 1, 1, 1]}]}',
    ],
)
async def test_an_answer_that_makes_no_sense_is_refused(payload: object) -> None:
    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        return 200, {}, payload

    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8, pace=FAST) as embedder:
        with pytest.raises(ComponentUnavailableError):
            await embedder.embed(["x"])


async def test_a_dead_endpoint_is_unavailable_and_names_the_address() -> None:
    async with endpoint() as served:
        gone = served.base_url
    pace = Pace(attempts=2, first_backoff_s=0.001)
    with pytest.raises(ComponentUnavailableError, match="SOMA_EMBEDDER_BASE_URL"):
        async with OpenAIEmbedder(gone, "m", pace=pace):
            pass


async def test_the_deadline_ends_a_call_whose_endpoint_hangs() -> None:
    hang = asyncio.Event()

    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        await hang.wait()
        return await embedding_answer(served, body)

    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8) as embedder:
        with pytest.raises(BudgetSpentError):
            await embedder.embed(["x"], deadline_s=0.05)
        hang.set()


async def test_a_cancelled_call_frees_its_slot() -> None:
    hang, arrived = asyncio.Event(), asyncio.Event()

    async def answer(served: Endpoint, body: dict[str, Any]) -> Answer:
        if not hang.is_set():
            arrived.set()
            await hang.wait()
        return await embedding_answer(served, body)

    pace = Pace(interactive_requests=1)
    async with endpoint(answer) as served, OpenAIEmbedder(served.base_url, "m", dimensions=8, pace=pace) as embedder:
        call = asyncio.ensure_future(embedder.embed(["x"]))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        hang.set()
        (embedding,) = await embedder.embed(["y"])
    np.testing.assert_allclose(embedding.dense, unit(vector_of("y")), atol=1e-6)


async def test_long_and_empty_texts_are_made_acceptable() -> None:
    async with endpoint() as served, OpenAIEmbedder(served.base_url, "m", dimensions=8) as embedder:
        await embedder.embed(["", "字" * 20_000, "plain words " * 1_000])
    empty, long, plain = (text for body in served.asked for text in body["input"])
    assert empty == " "
    assert len(long) == MAX_INPUT_TOKENS
    assert plain == "plain words " * 1_000


def test_it_is_an_embedder() -> None:
    embedder: Embedder = OpenAIEmbedder("http://127.0.0.1:1/v1", "m")
    with pytest.raises(RuntimeError):
        _ = embedder.profile

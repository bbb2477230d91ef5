"""The HTTP re-ranker against a real endpoint on loopback."""

from __future__ import annotations

from typing import Any

import pytest

from memory_server.stores.rerank.http import HttpReranker
from soma_contract.errors import ComponentUnavailableError
from tests.support.rerank_endpoint import Answer, endpoint


def by_length(body: dict[str, Any]) -> tuple[int, object]:
    results = [{"index": n, "relevance_score": len(text)} for n, text in enumerate(body["documents"])]
    return 200, {"results": results[::-1]}


async def test_scores_come_back_in_the_order_of_the_texts() -> None:
    seen: list[dict[str, Any]] = []
    async with endpoint(by_length, seen) as url, HttpReranker(url, model="m", api_key="k") as reranker:
        assert [3.0, 1.0, 2.0] == await reranker.scores("q", ["aaa", "b", "cc"], deadline_s=5)
    assert ("m", "q", ["aaa", "b", "cc"]) == tuple(seen[0]["body"][name] for name in ("model", "query", "documents"))
    assert "authorization: bearer k" in seen[0]["head"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda body: (500, {}),
        lambda body: (200, {"results": []}),
        lambda body: (200, {"results": [{"index": 7, "relevance_score": 1.0}]}),
        lambda body: (200, {"results": [{"index": 0, "relevance_score": "NaN"}]}),
        lambda body: (200, ["no results"]),
    ],
)
async def test_an_answer_that_is_not_one_score_a_text_is_an_outage(answer: Answer) -> None:
    async with endpoint(answer, []) as url, HttpReranker(url) as reranker:
        with pytest.raises(ComponentUnavailableError):
            await reranker.scores("q", ["a"], deadline_s=5)


async def test_an_endpoint_that_is_not_there_is_an_outage() -> None:
    async with HttpReranker("http://127.0.0.1:1/rerank") as reranker:
        with pytest.raises(ComponentUnavailableError):
            await reranker.scores("q", ["a"], deadline_s=2)

"""A re-ranking endpoint as Cohere and Jina serve it: POST {model, query, documents} -> results[{index, score}]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx

from soma_contract.errors import ComponentUnavailableError

COMPONENT = "rerank"


class HttpReranker:
    """The Reranker port over HTTP; an async context manager that owns its connections."""

    def __init__(self, url: str, *, model: str = "", api_key: str = "") -> None:
        """``url`` is the endpoint's full address, such as https://host/v1/rerank."""
        self._url = url
        self._model = model
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(headers=headers)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        """Return the endpoint's relevance scores in the order of the texts.

        Raises ComponentUnavailableError for any answer that is not one finite score a text.
        """
        body = {"query": query, "documents": list(texts), "top_n": len(texts), "return_documents": False}
        if self._model:
            body["model"] = self._model
        try:
            answer = await self._client.post(self._url, json=body, timeout=deadline_s)
            answer.raise_for_status()
            scores = {int(one["index"]): float(one["relevance_score"]) for one in answer.json()["results"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ComponentUnavailableError(component=COMPONENT) from error
        if scores.keys() != set(range(len(texts))) or not all(map(math.isfinite, scores.values())):
            raise ComponentUnavailableError(component=COMPONENT)
        return [scores[position] for position in range(len(texts))]

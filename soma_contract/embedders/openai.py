"""Embeddings from an endpoint that speaks OpenAI's protocol: OpenAI, Azure's v1 path, Ollama, vLLM, TEI and others."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import numpy as np
from numpy.typing import NDArray

from soma_contract.embedders.base import Embedding, EmbeddingProfile, Idf, Priority, unit_rows
from soma_contract.errors import BudgetSpentError, ComponentUnavailableError

MAX_INPUT_TOKENS = 8_000
"""Longer texts are cut: the common models refuse a request with a text of more than 8,191 tokens."""

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard the endpoint is asked."""

    batch_texts: int = 128
    batch_chars: int = 200_000
    bulk_requests: int = 4
    """Requests in flight for the indexer."""
    interactive_requests: int = 16
    attempts: int = 6
    first_backoff_s: float = 0.25
    longest_backoff_s: float = 8.0
    request_timeout_s: float = 60.0


class OpenAIEmbedder:
    """Embeds over HTTP; vectors are normalised here, there are no token vectors.

    ``base_url`` is what comes before ``/embeddings``, e.g. ``https://api.openai.com/v1``.  ``dimensions`` is asked of
    the endpoint when given; otherwise entering makes one request to learn it, and raises ComponentUnavailableError
    when the endpoint does not answer.
    """

    def __init__(
        self, base_url: str, model: str, *, api_key: str = "", dimensions: int | None = None, pace: Pace | None = None
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._model, self._dimensions = model, dimensions
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._pace = pace or Pace()
        self._slots = {
            Priority.INTERACTIVE: asyncio.Semaphore(self._pace.interactive_requests),
            Priority.BULK: asyncio.Semaphore(self._pace.bulk_requests),
        }
        self._profile: EmbeddingProfile | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def profile(self) -> EmbeddingProfile:
        """Model and dimension of its vectors; raises RuntimeError before it is entered."""
        if self._profile is None:
            raise RuntimeError("enter the embedder before asking for its profile")
        return self._profile

    async def __aenter__(self) -> Self:
        timeout = httpx.Timeout(self._pace.request_timeout_s, connect=5.0)
        self._client = await httpx.AsyncClient(timeout=timeout, headers=self._headers).__aenter__()
        try:
            dimension = self._dimensions or len((await self._request(["dimension"]))[0])
        except BaseException:
            await self._client.aclose()
            raise
        self._profile = EmbeddingProfile(self._model, dimension, revision="")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def embed(
        self,
        texts: Sequence[str],
        *,
        with_tokens: bool = False,
        deadline_s: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
        idf: Idf | None = None,
    ) -> list[Embedding]:
        """Embed texts, in order; see `Embedder.embed`.  ``with_tokens`` and ``idf`` change nothing here."""
        inputs = {text: _acceptable(text) for text in texts}
        batches = list(_batches(list(dict.fromkeys(inputs.values())), self._pace))
        try:
            async with asyncio.timeout(deadline_s):
                found = await self._rows(batches, priority)
        except TimeoutError:
            raise BudgetSpentError(stage="embed") from None
        return [Embedding(found[inputs[text]]) for text in texts]

    async def _rows(self, batches: Sequence[Sequence[str]], priority: Priority) -> dict[str, NDArray[np.float32]]:
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._batch(batch, priority)) for batch in batches]
        except ExceptionGroup as failures:
            refused = failures.subgroup(ComponentUnavailableError)
            if refused is None:
                raise
            # The first says why; the others fell with it.
            raise next(_leaves(refused)) from None
        found: dict[str, NDArray[np.float32]] = {}
        for batch, task in zip(batches, running, strict=True):
            found.update(zip(batch, task.result(), strict=True))
        return found

    async def _batch(self, batch: Sequence[str], priority: Priority) -> NDArray[np.float32]:
        async with self._slots[priority]:
            rows = await self._request(batch)
        if rows.shape[1] != self.profile.dimension:
            raise _refused(
                f"gave vectors of {rows.shape[1]} dimensions where {self.profile.dimension} were expected: set "
                "SOMA_EMBEDDER_DIMENSIONS to what the model gives"
            )
        return unit_rows(rows)

    async def _request(self, batch: Sequence[str]) -> NDArray[np.float32]:
        """Post one batch until it is answered, up to the number of attempts."""
        assert self._client is not None
        body: dict[str, object] = {"model": self._model, "input": list(batch), "encoding_format": "float"}
        if self._dimensions:
            body["dimensions"] = self._dimensions
        problem = ""
        for attempt in range(1, self._pace.attempts + 1):
            backoff_s = random.uniform(0, min(self._pace.longest_backoff_s, self._pace.first_backoff_s * 2**attempt))
            try:
                response = await self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                problem = f"cannot be reached ({type(error).__name__}): check SOMA_EMBEDDER_BASE_URL"
            except (httpx.InvalidURL, httpx.UnsupportedProtocol):
                raise _refused("has no valid address: check SOMA_EMBEDDER_BASE_URL") from None
            else:
                if response.is_success:
                    return _rows(response, len(batch))
                problem = _problem(response)
                if response.status_code not in _RETRIED:
                    raise _refused(problem)
                backoff_s = max(backoff_s, _retry_after_s(response))
            if attempt < self._pace.attempts:
                await asyncio.sleep(min(backoff_s, self._pace.longest_backoff_s))
        raise _refused(f"{problem} ({self._pace.attempts} attempts)")


def _refused(problem: str) -> ComponentUnavailableError:
    return ComponentUnavailableError(f"the embedding endpoint {problem}", retry_after_s=5.0, component="embedder")


def _leaves(group: ExceptionGroup[ComponentUnavailableError]) -> Iterator[ComponentUnavailableError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _problem(response: httpx.Response) -> str:
    """Say what is wrong, never quoting the answer: it may repeat texts, which belong to other tenants too."""
    status = response.status_code
    if status in (401, 403):
        return f"refused the credentials ({status}): check SOMA_EMBEDDER_API_KEY"
    if status == 404:
        return "knows no such model or path (404): check SOMA_EMBEDDER_MODEL and SOMA_EMBEDDER_BASE_URL"
    try:
        code = str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = ""
    return f"answered {status}" + (f" {code}" if _IDENTIFIER.fullmatch(code) else "")


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def _rows(response: httpx.Response, count: int) -> NDArray[np.float32]:
    try:
        entries = sorted(response.json()["data"], key=lambda entry: int(entry["index"]))
        rows = np.array([entry["embedding"] for entry in entries], np.float32)
    except (ValueError, KeyError, TypeError):
        raise _refused("answered something that is no list of embeddings: check SOMA_EMBEDDER_BASE_URL") from None
    if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all():
        raise _refused("gave wrong vectors: another number than asked for, or not finite")
    return rows


def _acceptable(text: str) -> str:
    """Cut a text to what the endpoint takes, by a careful estimate of its tokens; an empty one is refused there."""
    if not text.strip():
        return " "
    if len(text) <= MAX_INPUT_TOKENS:
        return text
    tokens = 0.0
    for index, char in enumerate(text):
        tokens += 0.35 if char.isascii() else 1.0
        if tokens > MAX_INPUT_TOKENS:
            return text[:index]
    return text


def _batches(texts: Sequence[str], pace: Pace) -> Iterator[list[str]]:
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and (len(batch) == pace.batch_texts or chars + len(text) > pace.batch_chars):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch

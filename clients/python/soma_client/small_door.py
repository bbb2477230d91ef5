"""Memory in three words for agents that want no more: save, load, search.

Sugar on the contract: a saved payload is a memory with a key, whose text is read from the payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soma_client.answers import Remembered
from soma_client.client import SomaClient
from soma_contract.errors import FieldViolationError, MemoryNotFoundError
from soma_contract.filters import AllOf, Filter, KeyPrefix, LabelField, LabelIn, NumberField, NumberRange
from soma_contract.memory import Kind, Memory, Remember

Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """One memory found; ``score`` is None where nothing was compared, as in a search by key prefix."""

    memory: Memory
    score: float | None = None

    @property
    def key(self) -> str:
        """The key it was saved under; empty if it has none."""
        return self.memory.key

    @property
    def payload(self) -> dict[str, Any]:
        """What was saved; a memory without a payload gives its text."""
        return payload_of(self.memory)


async def save_memory(
    client: SomaClient,
    key: str,
    payload: Payload | str,
    *,
    type: str = "",
    ttl_s: float | None = None,
    relevance: float | None = None,
) -> Remembered:
    """Save a payload, or a text, under a key; saving again under the same key replaces it."""
    text, payload_json = (payload, "") if isinstance(payload, str) else ("", payload_text(payload))
    memory = Memory(
        key=key, text=text, payload_json=payload_json, schema_type=type, relevance=relevance, kind=Kind.SEMANTIC
    )
    return await client.remember(Remember(memory, ttl_s=ttl_s))


async def load_memory(client: SomaClient, key: str) -> dict[str, Any] | None:
    """What was saved under a key, or None."""
    try:
        return payload_of(await client.get(key=key))
    except MemoryNotFoundError:
        return None


async def search_memory(
    client: SomaClient,
    text: str = "",
    *,
    key_prefix: str = "",
    type: str = "",
    min_relevance: float | None = None,
    limit: int = 10,
) -> tuple[Found, ...]:
    """Search by meaning, or list by key prefix; a text takes the other arguments as conditions."""
    if not text and not key_prefix:
        raise FieldViolationError.at("text", "give a text, a key prefix, or both")
    condition = conditions(key_prefix, type, min_relevance)
    if text:
        answer = await client.recall_all(text, filter=condition, limit=limit)
        return tuple(Found(hit.memory, hit.score) for hit in answer.hits)
    found: list[Found] = []
    async for memory in client.list(condition, order="key", page_size=limit):
        found.append(Found(memory))
        if len(found) == limit:
            break
    return tuple(found)


def conditions(key_prefix: str, type: str, min_relevance: float | None) -> Filter:
    """What a search is confined to."""
    given: list[Filter] = []
    if type:
        given.append(LabelIn(LabelField.SCHEMA_TYPE, (type,)))
    if min_relevance is not None:
        given.append(NumberRange(NumberField.RELEVANCE, low=min_relevance))
    if key_prefix:
        given.append(KeyPrefix(key_prefix))
    return AllOf(tuple(given))


def payload_text(payload: Payload) -> str:
    """A payload as JSON, integers of any size exact; raises FieldViolationError for what JSON cannot say."""
    try:
        text = json.dumps(dict(payload), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FieldViolationError.at("payload", f"is not a JSON object: {error}") from None
    return text


def payload_of(memory: Memory) -> dict[str, Any]:
    """The payload of a memory as a dict."""
    payload: dict[str, Any] = json.loads(memory.payload_json) if memory.payload_json else {"text": memory.text}
    return payload


class AgentMemory:
    """The three words, for one tenant and persona."""

    def __init__(self, client: SomaClient) -> None:
        self.client = client

    async def save(
        self,
        key: str,
        payload: Payload | str,
        *,
        type: str = "",
        ttl_s: float | None = None,
        relevance: float | None = None,
    ) -> Remembered:
        """See save_memory."""
        return await save_memory(self.client, key, payload, type=type, ttl_s=ttl_s, relevance=relevance)

    async def load(self, key: str) -> dict[str, Any] | None:
        """See load_memory."""
        return await load_memory(self.client, key)

    async def search(
        self,
        text: str = "",
        *,
        key_prefix: str = "",
        type: str = "",
        min_relevance: float | None = None,
        limit: int = 10,
    ) -> tuple[Found, ...]:
        """See search_memory."""
        return await search_memory(
            self.client, text, key_prefix=key_prefix, type=type, min_relevance=min_relevance, limit=limit
        )


class AgentContext:
    """What an agent is given: its tenant, its persona and its memory.

    context = AgentContext(client, tenant="acme", persona="planner")
    await context.memory.save("user.preferences.format", {"text": "Mara wants tables"})
    """

    def __init__(self, client: SomaClient, *, tenant: str, persona: str, session: str = "") -> None:
        self.tenant = tenant
        self.persona = persona
        self.memory = AgentMemory(client.bound(tenant=tenant, persona=persona, session=session))

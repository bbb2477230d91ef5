"""Letta: agent files (``.af``), the older form of one agent and the newer one of several.

Memory blocks become semantic memories under the key ``<agent>.<label>``, messages episodic ones of a session named like
the agent, archival passages semantic ones.  Prompts, tools and settings are no memories and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from soma_client.readers.documents import Row, kept, known_id

_SPOKEN = {"user", "assistant"}
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]+")


def memories(document: Any) -> Iterator[tuple[str, Row]]:
    """All memories of all agents of a file."""
    if "agents" in document:
        blocks = {block["id"]: block for block in document.get("blocks") or ()}
        for number, agent in enumerate(document["agents"]):
            own = [blocks[each] for each in agent.get("block_ids") or () if each in blocks]
            yield from _agent(agent, [*own, *(agent.get("core_memory") or ())], f"agents[{number}].")
        return
    if "core_memory" not in document and "messages" not in document:
        raise ValueError("there are neither agents nor core_memory")
    yield from _agent(document, document.get("core_memory") or (), "")


def _agent(agent: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]], place: str) -> Iterator[tuple[str, Row]]:
    name = str(agent.get("name") or agent.get("id") or "agent")
    for block in blocks:
        if str(block.get("value") or "").strip():
            yield f"{place}blocks[{block['label']}]", _block(name, block)
    for number, message in enumerate(agent.get("messages") or ()):
        text = _text(message)
        if message.get("role") in _SPOKEN and text:
            yield f"{place}messages[{number}]", _message(name, message, number, text)
    for number, passage in enumerate(agent.get("passages") or agent.get("archival_memory") or ()):
        yield f"{place}passages[{number}]", _passage(name, passage)


def _block(agent: str, block: Mapping[str, Any]) -> Row:
    key = _NOT_IN_KEYS.sub("-", f"{agent}.{block['label']}")
    created = block.get("created_at")
    return kept(
        key=key,
        text=block["value"],
        kind="semantic",
        persona_id=agent,
        tags=["memory-block", block["label"]],
        create_time=created,
        update_time=block.get("updated_at") or created,
        provenance={"source": "letta"},
        payload=kept(label=block["label"], description=block.get("description"), limit=block.get("limit")),
    )


def _message(agent: str, message: Mapping[str, Any], number: int, text: str) -> Row:
    return kept(
        memory_id=known_id("letta", agent, "message", message.get("id") or number),
        text=text,
        kind="episodic",
        actor=message.get("name") or message["role"],
        persona_id=agent,
        session_id=agent,
        sequence=number,
        occurred_time=message.get("created_at"),
        provenance={"source": "letta"},
        payload=kept(role=message["role"], model=message.get("model")),
    )


def _passage(agent: str, passage: Mapping[str, Any]) -> Row:
    return kept(
        memory_id=known_id("letta", agent, "passage", passage.get("id") or passage["text"]),
        text=passage["text"],
        kind="semantic",
        persona_id=agent,
        tags=["archival", *(passage.get("tags") or ())],
        occurred_time=passage.get("created_at"),
        provenance={"source": "letta"},
        payload=passage.get("metadata") or passage.get("metadata_") or {},
    )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content.strip()
    parts = [part["text"] for part in content or () if part.get("type") == "text" and part.get("text")]
    return "\n".join(parts).strip() or str(message.get("text") or "").strip()

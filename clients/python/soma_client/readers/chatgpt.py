"""ChatGPT: ``conversations.json`` of its data export.

A list of conversations, each a tree of messages; the branch that ends in ``current_node`` is what its reader saw.
Every message somebody wrote or read becomes an episodic memory, in its conversation's order; hidden messages, tools'
output and abandoned branches are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from soma_client.readers.documents import Row, kept, known_id

_SPOKEN = {"user", "assistant"}
_TEXTUAL = {"text", "multimodal_text", "code"}


def memories(document: Any) -> Iterator[tuple[str, Row]]:
    """The messages of all conversations."""
    conversations = [document] if isinstance(document, Mapping) else document
    for number, conversation in enumerate(conversations):
        session = str(conversation.get("conversation_id") or conversation.get("id") or conversation["title"])
        for sequence, message in enumerate(_branch(conversation)):
            yield f"[{number}].{message.get('id') or sequence}", _message(conversation, session, sequence, message)


def _branch(conversation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages from the root to the current node that somebody saw."""
    nodes = conversation["mapping"]
    at = conversation.get("current_node") or _last(nodes)
    found, seen = [], set()
    while at in nodes and at not in seen:
        seen.add(at)
        message = nodes[at].get("message")
        if message is not None and _visible(message):
            found.append(message)
        at = nodes[at].get("parent")
    return found[::-1]


def _last(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """The youngest leaf, for exports that do not name the current node."""
    leaves = [name for name, node in nodes.items() if not node.get("children")]
    return max(leaves, key=lambda name: (nodes[name].get("message") or {}).get("create_time") or 0.0, default="")


def _visible(message: Mapping[str, Any]) -> bool:
    hidden = message.get("weight") == 0 or (message.get("metadata") or {}).get("is_visually_hidden_from_conversation")
    content = message.get("content") or {}
    spoken = message["author"]["role"] in _SPOKEN and content.get("content_type", "text") in _TEXTUAL
    return bool(spoken and not hidden and message.get("recipient", "all") == "all" and _text(content))


def _text(content: Mapping[str, Any]) -> str:
    parts = content.get("parts") or [content.get("text") or ""]
    return "\n".join(part for part in parts if isinstance(part, str)).strip()


def _message(conversation: Mapping[str, Any], session: str, sequence: int, message: Mapping[str, Any]) -> Row:
    author = message["author"]
    at = message.get("create_time") or conversation.get("create_time")
    return kept(
        memory_id=known_id("chatgpt", session, message.get("id") or sequence),
        text=_text(message["content"]),
        kind="episodic",
        actor=author.get("name") or author["role"],
        session_id=session,
        sequence=sequence,
        occurred_time=at,
        provenance={"source": "chatgpt"},
        payload=kept(
            title=conversation.get("title"),
            role=author["role"],
            model=(message.get("metadata") or {}).get("model_slug"),
        ),
    )

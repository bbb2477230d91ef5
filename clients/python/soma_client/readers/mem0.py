"""mem0: what ``get_all`` and ``search`` answer, and lists of it.

``{"results": [{"id", "memory", "user_id", "agent_id", "run_id", "metadata", "categories", "created_at", …}],
"relations": [{"source", "relationship", "target"}]}``; older versions give the bare list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from soma_client.readers.documents import Row, kept, known_id

_FIELDS = {
    "id",
    "memory",
    "actor_id",
    "role",
    "agent_id",
    "run_id",
    "categories",
    "created_at",
    "updated_at",
    "expiration_date",
    "memory_type",
    "hash",
    "score",
}


def memories(document: Any) -> Iterator[tuple[str, Row]]:
    """One memory each, and one for each relation between entities."""
    if isinstance(document, list):
        document = {"results": document}
    elif "memory" in document and "results" not in document:
        document = {"results": [document]}
    if "results" not in document and "memories" not in document:
        raise ValueError("there is no list named results")
    for number, found in enumerate(document.get("results", document.get("memories"))):
        yield f"results[{number}]", _memory(found)
    for number, relation in enumerate(document.get("relations") or ()):
        yield f"relations[{number}]", _relation(relation)


def _memory(found: Mapping[str, Any]) -> Row:
    procedural = found.get("memory_type") == "procedural_memory"
    rest = {name: value for name, value in found.items() if name not in _FIELDS and value not in (None, "", [], {})}
    created, updated = found.get("created_at"), found.get("updated_at")
    return kept(
        memory_id=known_id("mem0", found["id"]) if found.get("id") else None,
        text=found["memory"],
        kind="procedural" if procedural else "semantic",
        actor=found.get("actor_id") or found.get("user_id") or found.get("role"),
        persona_id=found.get("agent_id"),
        session_id=found.get("run_id"),
        tags=found.get("categories"),
        occurred_time=created,
        create_time=created,
        update_time=updated or created,
        expire_time=found.get("expiration_date"),
        provenance={"source": "mem0"},
        payload=rest,
    )


def _relation(relation: Mapping[str, Any]) -> Row:
    source, name = relation["source"], relation["relationship"]
    target = relation.get("target", relation.get("destination"))
    words = (str(each).replace("_", " ") for each in (source, name, target))
    return kept(
        memory_id=known_id("mem0 relation", source, name, target),
        text=" ".join(words),
        kind="semantic",
        tags=["relation"],
        provenance={"source": "mem0"},
        payload={"source": source, "relationship": name, "target": target},
    )

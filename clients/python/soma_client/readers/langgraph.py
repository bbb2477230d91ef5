"""LangGraph: items of a store, as ``Item.dict()`` gives them or as rows of its Postgres table.

``{"namespace": ["memories", "ada"], "key": "…", "value": {…}, "created_at", "updated_at"}`` or
``{"prefix": "memories.ada", "key": "…", "value": {…}, "created_at", "updated_at", "expires_at"}``: one document with a
list, or one item a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from soma_client.readers.documents import Row, kept

_TEXTS = ("text", "content", "memory", "data", "summary", "fact")


def memories(document: Any) -> Iterator[tuple[str, Row]]:
    """One memory an item, under the key ``<namespace>.<key>``."""
    if isinstance(document, Mapping):
        document = document.get("items", [document])
        if len(document) == 1:
            yield "", _item(document[0])
            return
    for number, item in enumerate(document):
        yield f"[{number}]", _item(item)


def _item(item: Mapping[str, Any]) -> Row:
    namespace = item["prefix"].split(".") if "prefix" in item else list(item["namespace"])
    value = item["value"]
    if isinstance(value, str):
        value = orjson.loads(value)
    if not isinstance(value, Mapping):
        raise TypeError("a value is an object")
    created = item.get("created_at")
    return kept(
        key=".".join([*map(str, namespace), str(item["key"])]),
        text=_text(value),
        kind="semantic",
        tags=list(dict.fromkeys(map(str, namespace))),
        create_time=created,
        update_time=item.get("updated_at") or created,
        expire_time=item.get("expires_at"),
        provenance={"source": "langgraph"},
        payload=dict(value),
    )


def _text(value: Mapping[str, Any]) -> str:
    """What is embedded: the first text the value has, else all of it as JSON."""
    for name in _TEXTS:
        if isinstance(value.get(name), str) and value[name].strip():
            return str(value[name])
    found = [each for each in value.values() if isinstance(each, str) and each.strip()]
    return found[0] if found else orjson.dumps(value).decode()

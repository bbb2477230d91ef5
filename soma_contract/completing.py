"""Fills in what a memory's writer left to Soma, the same way on both servers.

The brain completes a write before it acknowledges it, so that a queued write already has its final
id; completing twice changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from soma_contract.amending import amended
from soma_contract.coordinate import coordinate_of
from soma_contract.errors import FieldViolationError
from soma_contract.ids import keyed_memory_id, new_memory_id
from soma_contract.json_rules import is_number, parse_payload
from soma_contract.memory import DEFAULT_NAMESPACE, Memory, Remember, Vector

TEXT_FIELDS = ("task", "text", "content", "what", "fact", "headline", "description")
"""Payload fields that stand in for a missing text, in this order."""


def completed(command: Remember, new_id: Callable[[], str] = new_memory_id) -> Remember:
    """Return the command with namespace, id, coordinate and text filled in.

    The embedding, if there is one, is scaled to unit norm.  Raises FieldViolationError for a
    memory that has neither text nor payload nor key, and for a coordinate that is not its own.
    """
    return replace(command, memory=completed_memory(command.memory, new_id))


def completed_memory(
    memory: Memory, new_id: Callable[[], str] = new_memory_id, *, embedding_model: str | None = None
) -> Memory:
    """Return a memory with all that filled in, and the model's name if one is given; raises FieldViolationError."""
    namespace = memory.namespace or DEFAULT_NAMESPACE
    memory_id = memory.memory_id
    if not memory_id:
        memory_id = keyed_memory_id(namespace, memory.key) if memory.key else new_id()
    coordinate = coordinate_of(memory.key or memory_id)
    if memory.coordinate is not None and memory.coordinate != coordinate:
        raise FieldViolationError.at(
            "memory.coordinate", "is derived from the key (or the id); leave it empty or send the derived one"
        )
    text = memory.text or text_of_payload(memory.payload_json) or memory.key
    if not text:
        raise FieldViolationError.at("memory.text", "give a text, a payload with a text field, or a key")
    # One copy for all of it: a copy of a memory costs as much as half of its checks.
    return amended(
        memory,
        namespace=namespace,
        memory_id=memory_id,
        coordinate=coordinate,
        text=text,
        embedding=unit(memory.embedding) if memory.embedding else None,
        embedding_model=memory.embedding_model if embedding_model is None else embedding_model,
    )


def text_of_payload(payload_json: str) -> str:
    """Return the first non-empty text field of a payload, or an empty string."""
    if not payload_json:
        return ""
    payload = parse_payload(payload_json)
    for name in TEXT_FIELDS:
        value = payload.get(name)
        if isinstance(value, str) and not is_number(value) and value.strip():
            return value
    return ""


def unit(vector: Vector) -> Vector:
    """Scale a vector to unit norm; one that already is (within 1e-6) stays as it is."""
    array = vector.array.astype(np.float64)
    norm = math.sqrt(array @ array)
    if abs(norm - 1.0) <= 1e-6:
        return vector
    return Vector.of((array / norm).astype(np.float32))

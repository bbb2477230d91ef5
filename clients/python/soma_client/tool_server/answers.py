"""What the tools return, as the model sees it."""

from __future__ import annotations

from typing import Any, Required

# Pydantic, which makes the output schemas, cannot read typing.TypedDict before Python 3.12.
from typing_extensions import TypedDict

from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma_client.answers import Remembered, read_memory
from soma_client.small_door import payload_of
from soma_contract.memory import Durability, Memory

QUEUED = "Accepted and safe on disk; it is stored for good as soon as the memory server is back."


class MemoryAnswer(TypedDict, total=False):
    """One memory."""

    memory_id: Required[str]
    key: str
    type: str
    text: Required[str]
    payload: dict[str, Any]
    score: float
    occurred: str


class SavedAnswer(TypedDict, total=False):
    """What memory_save did."""

    memory_id: Required[str]
    key: Required[str]
    created: bool
    version: int
    note: str


class LoadedAnswer(TypedDict, total=False):
    """What memory_load found."""

    found: Required[bool]
    memory: MemoryAnswer
    note: str


class SearchAnswer(TypedDict, total=False):
    """What memory_search found."""

    memories: Required[list[MemoryAnswer]]
    complete: Required[bool]
    note: str


class ForgottenAnswer(TypedDict, total=False):
    """What memory_forget did."""

    forgotten: Required[bool]
    note: str


class ContextAnswer(TypedDict, total=False):
    """What memory_context wrote."""

    context: Required[str]
    tokens: Required[int]
    complete: Required[bool]
    note: str


class NeighborAnswer(TypedDict):
    """One memory nearby and the link that led there."""

    memory: MemoryAnswer
    distance: int
    strength: float
    link: str


class NeighborsAnswer(TypedDict, total=False):
    """What graph_neighbors found."""

    neighbors: Required[list[NeighborAnswer]]
    complete: Required[bool]
    note: str


def memory_answer(memory: Memory, score: float | None = None) -> MemoryAnswer:
    """A memory without what a model has no use for."""
    answer = MemoryAnswer(memory_id=memory.memory_id, text=memory.text)
    if memory.key:
        answer["key"] = memory.key
    if memory.schema_type:
        answer["type"] = memory.schema_type
    if memory.payload_json:
        answer["payload"] = payload_of(memory)
    if memory.occurred_at is not None:
        answer["occurred"] = memory.occurred_at.isoformat()
    if score is not None:
        answer["score"] = round(score, 4)
    return answer


def saved_answer(stored: Remembered) -> SavedAnswer:
    """What became of a write."""
    answer = SavedAnswer(memory_id=stored.memory.memory_id, key=stored.memory.key)
    if stored.durability is Durability.QUEUED:
        answer["note"] = QUEUED
        return answer
    answer["created"] = bool(stored.created)
    answer["version"] = stored.memory.version
    return answer


def neighbor_answer(near: graph_pb.Neighbor) -> NeighborAnswer:
    """A neighbour with the link spelled from source to target."""
    return NeighborAnswer(
        memory=memory_answer(read_memory(near.memory)),
        distance=near.depth,
        strength=round(near.strength, 4),
        link=f"{near.via.source_id} --{near.via.relation}--> {near.via.target_id}",
    )

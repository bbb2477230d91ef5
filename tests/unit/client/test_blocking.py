"""The blocking client does what the asynchronous one does, in a thread that has no loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_client import Soma
from soma_contract.errors import MemoryNotFoundError
from tests.unit.client.shelf import KEY, Shelf


async def test_the_blocking_client_remembers_lists_and_recalls(shelf: Shelf, address: str) -> None:
    shelf.hits = [pb.RecallHit(memory=memory_pb2.Memory(text="tea"), score=0.9)]

    def talk() -> tuple[object, ...]:
        with Soma.connect(address, key=KEY, tenant="a") as soma:
            kept = soma.remember("tea")
            many = sorted(outcome.position for outcome in soma.remember_many(["milk", "honey"]))
            listed = [memory.text for memory in soma.bound(persona="p").list()]
            recall = soma.recall("what is hot?")
            hits = [hit.memory.text for hit in recall]
            whole = soma.recall_all("what is hot?").hits[0].score
            with pytest.raises(MemoryNotFoundError):
                soma.get("0190b6a0-7c1e-7000-8000-000000000000")
            return kept.created, many, listed, hits, recall.summary.degraded, whole

    assert await asyncio.to_thread(talk) == (
        True,
        [0, 1],
        ["tea", "milk", "honey"],
        ["tea"],
        False,
        0.9,
    )


async def test_closing_ends_the_thread(address: str) -> None:
    def open_and_close() -> list[str]:
        Soma.connect(address, key=KEY).close()
        return [thread.name for thread in threading.enumerate() if thread.name == "soma-client"]

    assert await asyncio.to_thread(open_and_close) == []

"""The index and the cache may be deleted at any moment: answers get slower, never wrong."""

from __future__ import annotations

import asyncio

from soma.memory.v1 import memory_service_pb2 as pb
from tests.adversity.stack.test_killed_while_writing import own_office
from tests.support.stack import Office

__all__ = ["own_office"]

SAYINGS = (
    "Nadia keeps the spare key under the third flowerpot.",
    "The harbour ferry leaves at twenty past six on Sundays.",
    "Owen trues wheels only on the new stand.",
    "Rivers are drawn in a greyish blue at night.",
)


async def test_recall_finds_everything_after_milvus_and_redis_are_wiped(own_office: Office) -> None:
    office = own_office
    agent = await office.agent()
    for saying in SAYINGS:
        await agent.remember(saying)
    await office.indexed()
    assert SAYINGS[1] == (await agent.recall("when does the boat go?")).texts[0]

    await office.stack.stores.wipe("milvus")
    await office.stack.stores.wipe("redis")
    for saying in SAYINGS:
        found = await agent.recall(saying)
        assert saying == found.texts[0]
        assert len(SAYINGS) == len(found.hits)

    async with asyncio.timeout(60):
        while (found := await agent.recall("when does the boat go?")).summary.degraded or not any(
            leg.leg == pb.RECALL_LEG_DENSE and leg.candidates == len(SAYINGS) for leg in found.summary.legs
        ):
            assert len(SAYINGS) == len(found.hits)
    assert SAYINGS[1] == found.texts[0]

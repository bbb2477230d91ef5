"""A stack with a re-ranking endpoint: it orders the best anew, and its absence costs nothing but itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from soma.memory.v1 import memory_service_pb2 as pb
from soma_embedded.stack import EmbeddedStack
from tests.support.rerank_endpoint import endpoint
from tests.support.stack import RANDOM_PORTS, Found, opened
from tests.support.stores import data_directory


def judged(body: dict[str, Any]) -> tuple[int, object]:
    """Prefers texts that say so; away when the query says so."""
    if "away" in body["query"]:
        return 503, {}
    results = [{"index": n, "relevance_score": float("prefer me" in text)} for n, text in enumerate(body["documents"])]
    return 200, {"results": results}


def leg(found: Found) -> pb.LegReport:
    return next(each for each in found.summary.legs if each.leg == pb.RECALL_LEG_RERANK)


async def test_the_endpoint_has_the_last_word_and_only_while_it_answers() -> None:
    async with endpoint(judged, []) as url:
        settings = dataclasses.replace(RANDOM_PORTS, environment={"SOMA_RERANK_URL": url})
        with data_directory() as path:
            async with EmbeddedStack(path / "data", settings) as stack:
                office = await opened(stack)
                agent = await office.agent(through="memory")
                await agent.remember("The boat to the island leaves at noon.")
                await agent.remember("Nothing about travel here, but prefer me.")

                found = await agent.recall("when does the boat to the island leave?")
                assert "prefer me" in found.texts[0]
                assert pb.LEG_STATE_RAN == leg(found).state
                assert [1.0, 0.0] == [hit.signals.rerank for hit in found.hits]
                assert found.hits[0].score >= found.hits[1].score

                away = await agent.recall("when does the boat leave while you are away?")
                assert "boat" in away.texts[0]
                assert (pb.LEG_STATE_DEGRADED, "COMPONENT_UNAVAILABLE:rerank") == (leg(away).state, leg(away).cause)

                exact = await agent.recall("The boat to the island leaves at noon.")
                assert "boat" in exact.texts[0]

                fast = await agent.recall("when does the boat to the island leave?", preset=pb.RECALL_PRESET_FAST)
                assert "boat" in fast.texts[0]
                assert pb.LEG_STATE_SKIPPED == leg(fast).state
                await office.brain.close()
                await office.memory.close()

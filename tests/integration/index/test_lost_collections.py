"""A collection that is gone: recall answers without it, whatever comes of bringing it back."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from memory_server.ports import Collection, CollectionLostError
from soma_contract.errors import ComponentUnavailableError
from soma_contract.recall import Leg, RecallQuery
from tests.integration.index.workshop import Workshop

pytestmark = pytest.mark.stores


async def _refused(collection: Collection) -> None:
    raise ComponentUnavailableError(component="milvus")


async def _replaced(collection: Collection) -> None:
    raise CollectionLostError(collection.name)


async def _for_ever(collection: Collection) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("bringing_back", [_refused, _replaced, _for_ever], ids=["refused", "replaced", "hangs"])
async def test_a_recall_is_answered_though_its_collection_cannot_be_brought_back(
    workshop: Workshop, bringing_back: object
) -> None:
    tenant = await workshop.tenant("acme")
    await workshop.remember(tenant, ["the gate is green", "the roof is red"])
    await workshop.indexed(long_ago=True)
    await workshop.index.drop((await workshop.collection(tenant)).name)
    recalling = workshop.recalling
    recalling.search = dataclasses.replace(recalling.search, on_lost=bringing_back)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        query = RecallQuery(text="the gate is green", limit=1)
        found = await recalling.recall(tenant, query, namespace="default", deadline_s=2.0)
    assert ["the gate is green"] == [hit.memory.text for hit in found.hits]
    causes = {leg.leg: leg.cause for leg in found.summary.legs}
    assert causes[Leg.DENSE].startswith("INDEX_REBUILDING")

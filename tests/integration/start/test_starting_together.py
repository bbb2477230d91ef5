"""A brain and its memory server that are started at the same moment."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma_contract.ids import new_memory_id
from soma_embedded import EmbeddedStores
from tests.support.proxied import proxied_servers
from tests.support.stores import FreshDatabase

pytestmark = [pytest.mark.stores, pytest.mark.processes]

CALLERS = 32


async def test_a_brain_that_was_up_first_refuses_nobody_once_both_are(
    stores: EmbeddedStores, fresh_database: FreshDatabase
) -> None:
    async with proxied_servers(stores, fresh_database, together=True) as running:
        request = operator_pb.ListBreakersRequest()
        told = await running.brain.operator.ListBreakers(request, metadata=running.brain.metadata)
        assert [operator_pb.BREAKER_STATE_CLOSED] == [breaker.state for breaker in told.breakers]

        async def look() -> grpc.StatusCode:
            try:
                await running.brain.get(new_memory_id())
            except grpc.aio.AioRpcError as failed:
                return failed.code()
            return grpc.StatusCode.OK

        answers = await asyncio.gather(*(look() for _ in range(CALLERS)))
        assert {grpc.StatusCode.NOT_FOUND} == set(answers)

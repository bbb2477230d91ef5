"""Recalls through the gateway tell the breaker how they ended, so that a brain whose work is recall comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from brain_server.gateway.breaker import Breakers
from brain_server.gateway.memory import MemoryGateway
from brain_server.gateway.wire import MemoryWire
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.recalls import answer_to_pb
from soma_contract.recall import RecallQuery, Summary
from soma_contract.tenant import admin_tenant

ACME = admin_tenant("acme", reason="test")


@pytest.fixture(params=[True, False], ids=["together", "a frame each"])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A server that finds one memory, and sends it either way."""

    async def recall(asked: pb.RecallRequest, context: Any) -> AsyncIterator[pb.RecallResponse]:
        def write(wire: pb.RecallHit, score: float) -> None:
            wire.score = score

        for frame in answer_to_pb([0.5], write, Summary(()), together=request.param):
            yield frame

    handler = grpc.unary_stream_rpc_method_handler(
        recall,
        request_deserializer=pb.RecallRequest.FromString,
        response_serializer=pb.RecallResponse.SerializeToString,
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("soma.memory.v1.MemoryService", {"Recall": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_five_good_recalls_close_the_breaker(address: str) -> None:
    breakers = Breakers("memory")
    async with MemoryWire(address, "key", breakers) as wire:
        gateway = MemoryGateway(wire)
        for healthy in (False, False, True):
            breakers.health_probed(healthy)
        assert "half-open" == breakers.state.value
        for _ in range(5):
            answer = await gateway.recall(ACME, RecallQuery(text="tea"))
            assert 1 == len(answer.hits)
        assert "closed" == breakers.state.value

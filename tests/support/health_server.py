"""The smallest server a supervisor can be shown: it answers grpc.health.v1 at $SOMA_MEMORY_ADDRESS, and nothing else.

Not serving until the file $SOMA_TEST_SERVING exists.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SWITCH = Path(os.environ.get("SOMA_TEST_SERVING", "serving"))


async def check(
    _: health_pb2.HealthCheckRequest,
    __: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=SERVING if SWITCH.exists() else NOT_SERVING)


async def serve() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})])
    server.add_insecure_port(os.environ["SOMA_MEMORY_ADDRESS"])
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())

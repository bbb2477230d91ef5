"""A gRPC server in a process of its own that answers every call with frames it was given: the least an answer costs.

async with no_op_server(frames) as yardstick: ...      # yardstick.channel, yardstick.pid, yardstick.method
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from soma.memory.v1 import memory_service_pb2 as pb
from soma_embedded.ports import LOOPBACK

SERVICE, METHOD = "bench.NoOp", "Recall"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """A running one."""

    channel: grpc.aio.Channel
    pid: int

    @property
    def recall(self) -> Any:
        """Its method, typed as a recall."""
        return self.channel.unary_stream(
            f"/{SERVICE}/{METHOD}",
            request_serializer=pb.RecallRequest.SerializeToString,
            response_deserializer=pb.RecallResponse.FromString,
        )


@asynccontextmanager
async def no_op_server(frames: Sequence[pb.RecallResponse]) -> AsyncIterator[Yardstick]:
    """Start one that answers with these frames."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.no_op", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for frame in frames:
        content = frame.SerializeToString()
        process.stdin.write(len(content).to_bytes(4, "big") + content)
    process.stdin.write(bytes(4))
    await process.stdin.drain()
    port = int(await process.stdout.readline())
    try:
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
            yield Yardstick(channel, process.pid)
    finally:
        process.stdin.close()
        await process.wait()


async def serve() -> None:
    """Read frames from standard input and serve them until it is closed."""
    frames = []
    while size := int.from_bytes(sys.stdin.buffer.read(4), "big"):
        frames.append(pb.RecallResponse.FromString(sys.stdin.buffer.read(size)))

    async def answer(request: pb.RecallRequest, context: Any) -> AsyncIterator[pb.RecallResponse]:
        for frame in frames:
            yield frame

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        answer,
        request_deserializer=pb.RecallRequest.FromString,
        response_serializer=pb.RecallResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})])
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())

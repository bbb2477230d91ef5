"""Memories that end, out of the memory server's changelog."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import grpc

from brain_server.gateway.wire import MemoryWire
from rpckit.status import error_from_rpc
from soma.memory.v1 import watch_service_pb2 as pb
from soma.memory.v1.watch_service_pb2_grpc import WatchServiceStub
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class WatchedEndings:
    """The Endings port over WatchService."""

    wire: MemoryWire

    async def of(self, tenant: Tenant) -> AsyncGenerator[Sequence[str], None]:
        """Yield the ids of a tenant's memories as they end; an empty batch first, after which none is missed."""
        watch = WatchServiceStub(self.wire.channel).Watch
        # No deadline, and judged by its first answer: it lasts for as long as somebody has a session.
        async with self.wire.breakers.permit(tenant, "Watch", None) as permit:
            call = watch(pb.WatchRequest(ids_only=True), metadata=self.wire.metadata(tenant))
            try:
                async for frame in call:
                    permit.succeeded()
                    if frame.HasField("checkpoint"):
                        yield ()
                        continue
                    changes = frame.changes.changes
                    ended = [change.memory_ended.memory_id for change in changes if change.HasField("memory_ended")]
                    if ended:
                        yield ended
            except grpc.aio.AioRpcError as failed:
                raise error_from_rpc(failed) from None
            finally:
                call.cancel()

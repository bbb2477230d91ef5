"""RememberBatch of the memory server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brain_server.gateway.wire import MemoryWire
from soma.batch.v1 import batch_service_pb2 as pb
from soma.batch.v1.batch_service_pb2_grpc import BatchServiceStub
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_from_pb
from soma_contract.convert.memories import memory_from_pb, remember_to_pb
from soma_contract.errors import SomaError
from soma_contract.memory import Remember, Written
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class BatchGateway:
    """The LongTermBatches port over gRPC."""

    wire: MemoryWire

    async def remember_batch(
        self, tenant: Tenant, commands: Sequence[Remember], *, atomic: bool
    ) -> list[Written | SomaError]:
        """Store commands in one call."""
        request = pb.RememberBatchRequest(items=map(remember_to_pb, commands), atomic=atomic)
        answer = await self.wire.unary(BatchServiceStub(self.wire.channel).RememberBatch, request, tenant)
        return [_outcome(item) for item in answer.items]


def _outcome(item: pb.RememberBatchResponse.Item) -> Written | SomaError:
    if item.HasField("error"):
        return item_error_from_pb(item.error)
    wire = item.remembered
    memory = memory_from_pb(wire.memory, Checks(), "memory", keep_times=True)
    return Written(memory, wire.revision, created=wire.created, warnings=tuple(wire.warnings))

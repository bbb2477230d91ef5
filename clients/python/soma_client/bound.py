"""What all groups of calls share."""

from __future__ import annotations

from collections.abc import Sequence

from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_client.calling import Calls
from soma_client.naming import Named, target_of
from soma_contract.memory import Target


class Bound:
    """A group of calls on one channel for one identity.

    Every method raises SomaError; ``timeout_s`` is the deadline of one call, the contract's if not given.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._memory = rpc.MemoryServiceStub(calls.channel)

    @property
    def namespace(self) -> str:
        """The namespace of what names none."""
        return self._calls.identity.namespace

    def _target(
        self, named: Named | None = None, *, key: str = "", coordinate: str | Sequence[float] | None = None
    ) -> Target:
        return target_of(named, key=key, coordinate=coordinate, namespace=self.namespace)

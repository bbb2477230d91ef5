"""The smallest server that speaks MemoryService: a shelf of memories in a dict, behind the real chain of interceptors.

It is there to show what the client puts on the wire and makes of what comes back; what a server does with a memory is
shown elsewhere, by the servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from rpckit.interceptors import Drain, call_chain
from rpckit.server import bind, new_server
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.metrics import PrometheusMetrics
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.completing import completed
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.memories import memory_to_pb, remember_from_pb
from soma_contract.errors import (
    CredentialsInvalidError,
    DrainingError,
    FieldViolationError,
    MemoryNotFoundError,
    SomaError,
)
from soma_contract.tenant import Caller

KEY = "soma_0_test"


class Keys:
    """Knows one key."""

    async def authenticate(self, token: str) -> Caller:
        if token != KEY:
            raise CredentialsInvalidError
        return Caller("0", frozenset({"a", "b"}), frozenset({"*"}))


@dataclass
class Shelf(rpc.MemoryServiceServicer):
    """Keeps memories, notes the metadata and requests of every call, and fails as often as it is told to."""

    memories: dict[str, memory_pb2.Memory] = field(default_factory=dict)
    calls: list[tuple[dict[str, Any], Any]] = field(default_factory=list)
    failures: list[SomaError] = field(default_factory=list)
    """Raised by the next calls, first one first."""
    break_after: int | None = None
    """Breaks the next RememberMany after so many answers."""
    drain_after: int | None = None
    hits: list[pb.RecallHit] = field(default_factory=list)
    summary: pb.RecallSummary | None = field(default_factory=pb.RecallSummary)
    """The last frame of a recall; None leaves it out."""
    stall: bool = False
    """Whether a recall stops after its hits and never ends."""
    page: int = 2
    stored: list[str] = field(default_factory=list)
    """Request ids in the order they were stored, each once."""

    def note(self, context: Any, request: Any) -> None:
        self.calls.append((dict(context.invocation_metadata()), request))
        if self.failures:
            raise self.failures.pop(0)

    @property
    def metadata(self) -> dict[str, Any]:
        """Of the last call."""
        return self.calls[-1][0]

    @property
    def request(self) -> Any:
        """Of the last call."""
        return self.calls[-1][1]

    async def Remember(self, request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
        self.note(context, request)
        return self._store(request)

    def _store(self, request: pb.RememberRequest) -> pb.RememberResponse:
        checks = Checks()
        command = completed(remember_from_pb(request, checks))
        checks.done()
        created = command.memory.memory_id not in self.memories
        if request.request_id not in self.stored:
            self.stored.append(request.request_id)
        wire = memory_to_pb(command.memory)
        wire.version = 1
        self.memories[command.memory.memory_id] = wire
        return pb.RememberResponse(
            memory=wire, durability=common.DURABILITY_STORED, revision=len(self.stored), created=created
        )

    async def RememberMany(self, request_iterator: Any, context: Any) -> Any:
        self.note(context, None)
        answered = 0
        async for request in request_iterator:
            try:
                answer = pb.RememberManyResponse(
                    correlation_id=request.correlation_id, remembered=self._store(request.remember)
                )
            except FieldViolationError as error:
                answer = pb.RememberManyResponse(correlation_id=request.correlation_id, error=item_error_to_pb(error))
            if answered == self.break_after:
                # Stored, and the answer lost with the connection: the client has to send it again.
                self.break_after = None
                raise DrainingError
            if answered == self.drain_after:
                self.drain_after = None
                yield pb.RememberManyResponse(drain=pb.RememberManyDrain())
                return
            yield answer
            answered += 1

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        self.note(context, request)
        found = self.memories.get(request.target.memory_id)
        if found is None:
            raise MemoryNotFoundError(memory_id=request.target.memory_id)
        return pb.GetResponse(memory=found)

    async def BatchGet(self, request: pb.BatchGetRequest, context: Any) -> pb.BatchGetResponse:
        self.note(context, request)
        answer = pb.BatchGetResponse()
        for position, target in enumerate(request.targets):
            found = self.memories.get(target.memory_id)
            if found is None:
                answer.missing.append(position)
            elif len(answer.found) == self.page:
                answer.omitted.append(position)
            else:
                answer.found.add(position=position, memory=found)
        return answer

    async def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        self.note(context, request)
        return pb.UpdateResponse(memory=request.memory, durability=common.DURABILITY_QUEUED)

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        self.note(context, request)
        return pb.ForgetResponse(durability=common.DURABILITY_STORED, revision=7)

    async def ForgetMatching(self, request: pb.ForgetMatchingRequest, context: Any) -> Any:
        self.note(context, request)
        yield pb.ForgetMatchingResponse(progress=pb.ForgetMatchingProgress(deleted=1))
        yield pb.ForgetMatchingResponse(total=pb.ForgetMatchingTotal(matched=2, deleted=2, revision=9))

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:
        self.note(context, request)
        start = int(request.page_token or 0)
        rest = list(self.memories.values())[start:]
        token = str(start + self.page) if len(rest) > self.page else ""
        return pb.ListResponse(memories=rest[: self.page], next_page_token=token)

    async def History(self, request: pb.HistoryRequest, context: Any) -> pb.HistoryResponse:
        self.note(context, request)
        return pb.HistoryResponse(versions=[self.memories[request.memory_id]])

    async def Recall(self, request: pb.RecallRequest, context: Any) -> Any:
        self.note(context, request)
        for hit in self.hits:
            yield pb.RecallResponse(hit=hit)
        if self.stall:
            await asyncio.Event().wait()
        if self.summary is not None:
            yield pb.RecallResponse(summary=self.summary)


@asynccontextmanager
async def served(shelf: Shelf) -> AsyncIterator[str]:
    """Serve a shelf on a port of its own; yields the address."""
    chain = call_chain(Keys(), drain=Drain(), telemetry=CallTelemetry(PrometheusMetrics()))
    server: grpc.aio.Server = new_server(chain)
    rpc.add_MemoryServiceServicer_to_server(shelf, server)
    port = bind(server, "127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)

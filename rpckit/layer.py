"""What the layers of the chain work on: the kind of method called, and one running call."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from rpckit.call import CallContext
from rpckit.metadata import Received
from soma_contract.errors import Code, SomaError
from soma_contract.tenant import Caller

Wire = grpc.aio.ServicerContext[Any, Any]
"""grpc's side of the call."""

OPEN_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
    "grpc.channelz.v1.Channelz",
)
"""Standard services that answer without credentials; they tell of the server, never of a tenant."""


@dataclass(frozen=True, slots=True)
class Method:
    """An rpc, as far as the chain cares."""

    path: str
    """As on the wire: ``/soma.memory.v1.MemoryService/Recall``."""
    operation: str
    """As in metrics: ``MemoryService/Recall``; ``_OTHER`` for all methods that nobody serves."""
    is_stream: bool
    """Whether either side sends more than one message."""
    is_open: bool
    """Whether it may be called without credentials."""


class Span(Protocol):
    """A trace's record of a call."""

    def end(self, call: Call) -> None:
        """Note how the call ended."""


@dataclass(slots=True, eq=False)
class Call:
    """One running call; lives as long as the call and is seen by the chain only."""

    method: Method
    wire: Wire
    received: Received
    context: CallContext
    """What the handler may know; whole once the call is bound to its tenant."""
    caller: Caller | None = None
    started: float = field(default_factory=time.perf_counter)
    scope: asyncio.Timeout | None = None
    """Ends the call: at its deadline, or at once when a shutdown's grace is over."""
    stage: str = "start"
    """Where the call is, named in BUDGET_SPENT."""
    cut: SomaError | None = None
    """Why the call was ended from outside, if it was."""
    code: Code = Code.OK
    reason: str = ""
    span: Span | None = None


class Layer(Protocol):
    """A gate that each call passes on its way to the handler."""

    name: str
    """As the stage in BUDGET_SPENT."""

    async def enter(self, call: Call) -> None:
        """Let the call pass, or raise the SomaError it is refused with."""

    def leave(self, call: Call) -> None:
        """Take note that a call which passed has ended, however it ended."""

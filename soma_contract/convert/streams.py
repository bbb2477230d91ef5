"""Frames of the streams that both servers serve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.errors import SomaError

RECONNECT_AFTER_S = 1
REMEMBER_MANY_IN_FLIGHT = 64

WriteRemembered = Callable[[pb.RememberManyResponse], Awaitable[None]]


def refused_item(correlation_id: str, error: SomaError) -> pb.RememberManyResponse:
    """The answer to a memory that was refused."""
    return pb.RememberManyResponse(correlation_id=correlation_id, error=item_error_to_pb(error))


def remember_many_drain() -> pb.RememberManyResponse:
    """The last frame of a server that shuts down."""
    drain = pb.RememberManyDrain()
    drain.reconnect_after.FromSeconds(RECONNECT_AFTER_S)
    return pb.RememberManyResponse(drain=drain)

"""Batches of memories and of recalls, as both servers read and answer them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from soma.batch.v1 import batch_service_pb2 as pb
from soma.memory.v1 import memory_pb2
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.memories import remember_from_pb, remembered_to_pb
from soma_contract.errors import FieldViolationError, SomaError
from soma_contract.limits import LIMITS
from soma_contract.memory import Durability, Remember, Written

RECALLS_IN_FLIGHT = 10
"""So many recalls of one stream run at a time."""

WriteRecalled = Callable[[pb.RecallManyResponse], Awaitable[None]]


def remember_batch_from_pb(
    wire: pb.RememberBatchRequest, *, namespace: str = "", persona: str = "", session: str = ""
) -> list[Remember | SomaError]:
    """Read what to store; a wrong item is an error in its place, unless all or none are wanted: then it is raised.

    Raises FieldViolationError for another number of items than 1 to 500.
    """
    if not 1 <= len(wire.items) <= LIMITS.batch_items:
        raise FieldViolationError.at("items", f"must hold 1 to {LIMITS.batch_items} memories")
    commands: list[Remember | SomaError] = []
    whole = Checks(namespace)
    for position, item in enumerate(wire.items):
        checks = whole if wire.atomic else Checks(namespace)
        path = f"items[{position}]" if wire.atomic else ""
        command = remember_from_pb(item, checks, path, persona=persona, session=session)
        failed = not wire.atomic and checks.violations
        commands.append(FieldViolationError(violations=checks.violations) if failed else command)
    whole.done()
    return commands


def remember_batch_to_pb(outcomes: Sequence[Written | SomaError]) -> pb.RememberBatchResponse:
    """Write what became of each; past 3 MiB memories come without text and payload, which the caller has."""
    wire = pb.RememberBatchResponse()
    size = 0
    for outcome in outcomes:
        item = wire.items.add()
        if isinstance(outcome, SomaError):
            item.error.CopyFrom(item_error_to_pb(outcome))
        else:
            item.remembered.CopyFrom(remembered_to_pb(outcome, Durability.STORED))
            wire.revision = max(wire.revision, outcome.revision)
        size += item.ByteSize() + 8
        if size > LIMITS.response_bytes and item.HasField("remembered"):
            size -= item.ByteSize()
            _shorten(item.remembered.memory)
            size += item.ByteSize()
    return wire


def refused_recall(correlation_id: str, error: SomaError) -> pb.RecallManyResponse:
    """The answer to a query that failed."""
    return pb.RecallManyResponse(correlation_id=correlation_id, error=item_error_to_pb(error))


def _shorten(memory: memory_pb2.Memory) -> None:
    memory.ClearField("text")
    memory.ClearField("payload_json")

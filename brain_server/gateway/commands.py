"""Commands as bytes, for the outbox: the request messages of the contract, so that old entries stay readable."""

from __future__ import annotations

from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import (
    forget_from_pb,
    forget_to_pb,
    remember_from_pb,
    remember_to_pb,
    update_from_pb,
    update_to_pb,
)
from soma_contract.memory import Command, Forget, Remember

REMEMBER, UPDATE, FORGET = "remember", "update", "forget"
PROMOTE = "promote"
"""A Remember that copies an item of working memory."""


def encoded(command: Command) -> tuple[str, bytes]:
    """Return the operation's name and the command as bytes."""
    match command:
        case Remember():
            return REMEMBER, remember_to_pb(command).SerializeToString(deterministic=True)
        case Forget():
            return FORGET, forget_to_pb(command).SerializeToString(deterministic=True)
        case _:
            return UPDATE, update_to_pb(command).SerializeToString(deterministic=True)


def decoded(operation: str, content: bytes) -> Command:
    """Return the command again; raises ValueError for an operation this brain does not know."""
    checks = Checks()
    match operation:
        case "remember" | "promote":
            return remember_from_pb(pb.RememberRequest.FromString(content), checks)
        case "forget":
            return forget_from_pb(pb.ForgetRequest.FromString(content), checks)
        case "update":
            return update_from_pb(pb.UpdateRequest.FromString(content), checks)
        case _:
            raise ValueError(f"unknown operation {operation}")

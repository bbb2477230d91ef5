"""What a server answers to writes, as domain values."""

from __future__ import annotations

from dataclasses import dataclass

from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import memory_from_pb
from soma_contract.errors import SomaError
from soma_contract.memory import Durability, Memory


@dataclass(frozen=True, slots=True)
class Remembered:
    """An acknowledged write; QUEUED means durable in the brain's outbox, then revision is 0 and created None."""

    memory: Memory
    durability: Durability
    revision: int = 0
    created: bool | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An acknowledged deletion."""

    durability: Durability
    revision: int = 0


@dataclass(frozen=True, slots=True)
class ForgottenMatching:
    """A finished deletion by filter."""

    matched: int
    deleted: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item of many; exactly one of ``remembered`` and ``error`` is set."""

    position: int
    """Place among the items given, from 0."""
    remembered: Remembered | None = None
    error: SomaError | None = None


def read_memory(wire: memory_pb2.Memory) -> Memory:
    """A memory that a server sent, times and version included."""
    return memory_from_pb(wire, Checks(), "memory", keep_times=True)


def read_durability(wire: common.Durability.ValueType) -> Durability:
    """Where a write is durable."""
    return Durability.QUEUED if wire == common.DURABILITY_QUEUED else Durability.STORED


def read_remembered(wire: pb.RememberResponse | pb.UpdateResponse) -> Remembered:
    """The answer to Remember or Update."""
    durability = read_durability(wire.durability)
    created = None
    if durability is Durability.STORED:
        created = wire.created if isinstance(wire, pb.RememberResponse) else False
    return Remembered(read_memory(wire.memory), durability, wire.revision, created, tuple(wire.warnings))

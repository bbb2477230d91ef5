"""What pending writes make of a memory, before the long-term memory has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from soma_contract.coordinate import coordinate_of
from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Command, Coordinate, Forget, Memory, Remember, Target


def places(target: Target) -> tuple[str, ...]:
    """Names of the places a target means: its id, and for a key its derived id and coordinate as well.

    Two commands about one memory share a place however they name it.
    """
    if target.memory_id:
        return (target.memory_id,)
    if target.key:
        return (
            keyed_memory_id(target.namespace, target.key),
            _address(target.namespace, coordinate_of(target.key)),
        )
    assert target.coordinate is not None
    return (_address(target.namespace, target.coordinate),)


def touched(command: Command) -> tuple[str, ...]:
    """Every place a command reads or changes, each once."""
    if not isinstance(command, Remember):
        return places(command.target)
    memory = command.memory
    named = [memory.memory_id]
    if memory.key:
        named.append(keyed_memory_id(memory.namespace, memory.key))
    named.append(_address(memory.namespace, coordinate_of(memory.key or memory.memory_id)))
    return tuple(dict.fromkeys(named))


def applied(base: Memory | None, commands: Iterable[tuple[Command, datetime]]) -> Memory | None:
    """What the commands, oldest first with the times they were accepted, make of a memory; None is absent."""
    memory = base
    for command, at in commands:
        match command:
            case Remember():
                expires_at = command.memory.expires_at
                if command.ttl_s is not None:
                    expires_at = at + timedelta(seconds=command.ttl_s)
                memory = replace(command.memory, expires_at=expires_at, version=0)
            case Forget():
                memory = None
            case _ if memory is not None:
                changes = {field: getattr(command.memory, field) for field in command.mask}
                if command.ttl_s is not None:
                    changes["expires_at"] = at + timedelta(seconds=command.ttl_s)
                memory = replace(memory, **changes, version=0)
    return memory


def _address(namespace: str, coordinate: Coordinate) -> str:
    x, y, z = coordinate
    return f"{namespace}@{x!r},{y!r},{z!r}"

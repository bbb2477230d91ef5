"""A command as the journals take it: with what can be computed before any row is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memory_server.stores.fingerprints import content_hash, request_hash
from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Command, Coordinate, Forget, Memory, Origin, Remember, Target, Update


@dataclass(frozen=True, slots=True)
class Request:
    """A command with what can be computed before any row is read."""

    command: Command
    origin: Origin | None
    memory_id: str
    """The id it surely names; empty where the key or coordinate decides."""
    content: bytes
    fingerprint: bytes
    sweeping: bool = False
    """Whether it is to forget a memory because it has expired, and only then."""

    @classmethod
    def sweep(cls, memory_id: str) -> Request:
        """Prepare to forget an expired memory."""
        return cls(Forget(Target(memory_id=memory_id), allow_missing=True), None, memory_id, b"", b"", sweeping=True)

    @classmethod
    def of(cls, command: Command, origin: Origin | None) -> Request:
        """Prepare a command."""
        fingerprint = request_hash(command) if command.request_id else b""
        if isinstance(command, Remember):
            return cls(command, origin, command.memory.memory_id, content_hash(command.memory), fingerprint)
        return cls(command, origin, command.target.memory_id, b"", fingerprint)

    @property
    def ids(self) -> list[str]:
        """The ids of rows that this request may touch, as far as its own words tell."""
        if isinstance(self.command, Remember):
            memory = self.command.memory
            keyed = [keyed_memory_id(memory.namespace, memory.key)] if memory.key else []
            return [self.memory_id, *keyed] if self.memory_id else keyed
        return [self.memory_id] if self.memory_id else []

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The (namespace, key) pairs whose holders matter."""
        match self.command:
            case Remember(memory):
                return [(memory.namespace, memory.key)] if memory.key else []
            case Update(target) | Forget(target):
                return _target_keys(target)

    @property
    def may_move(self) -> bool:
        """Whether it is an update that changes what its memory is found by."""
        return isinstance(self.command, Update) and not {"namespace", "key"}.isdisjoint(self.command.mask)

    def moves_to(self, namespaces: set[str], keys: set[str]) -> set[tuple[str, str]]:
        """The (namespace, key) pairs that an update may move its memory to.

        Given the namespaces and keys that its memory may have: which of them it has is known only when the
        commands before it are decided.
        """
        if not isinstance(self.command, Update) or not self.may_move:
            return set()
        memory, mask = self.command.memory, self.command.mask
        return {
            (namespace, key)
            for namespace in ({memory.namespace} if "namespace" in mask else namespaces)
            for key in ({memory.key} if "key" in mask else keys)
            if key
        }

    @property
    def places(self) -> list[tuple[str, Coordinate]]:
        """The (namespace, coordinate) pairs whose memories matter."""
        if isinstance(self.command, Remember):
            return []
        target = self.command.target
        if target.memory_id or target.key or target.coordinate is None:
            return []
        return [(target.namespace, target.coordinate)]


def _target_keys(target: Target) -> list[tuple[str, str]]:
    return [(target.namespace, target.key)] if target.key and not target.memory_id else []


def moved_keys(requests: Sequence[Request], memories: Iterable[Memory]) -> set[tuple[str, str]]:
    """The (namespace, key) pairs that updates may take, given the memories that are there."""
    if not any(request.may_move for request in requests):
        return set()
    known = [*memories, *(request.command.memory for request in requests if not isinstance(request.command, Forget))]
    namespaces, keys = {memory.namespace for memory in known}, {memory.key for memory in known}
    return {pair for request in requests for pair in request.moves_to(namespaces, keys)}

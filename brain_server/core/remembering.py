"""The verb *write* on the brain: on this disk first, then at the memory server, and the truth about which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from brain_server.domain.entry import Draft
from brain_server.domain.pending import touched
from brain_server.domain.settled import OWN_PREFIX
from brain_server.ports import Accepted, Clock, PendingWrites, Submit
from brain_server.ports.long_term import LongTerm
from soma_contract.completing import completed, unit
from soma_contract.errors import ComponentUnavailableError
from soma_contract.ids import keyed_memory_id, new_memory_id
from soma_contract.memory import Command, Durability, Forget, Memory, Remember, Update, Written
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that survives a power cut; ``written`` says what it did once it is STORED.

    ``memory`` is what was written, None after a Forget and for an Update that is still queued.
    """

    durability: Durability
    memory: Memory | None
    written: Written | None = None


@dataclass(frozen=True, slots=True)
class Remembering:
    """Writes outbox-first; conditional writes go straight to the memory server, since only it can decide them."""

    submit: Submit
    pending: PendingWrites
    long_term: LongTerm
    encode: Callable[[Command], tuple[str, bytes]]
    clock: Clock

    async def write(
        self, tenant: Tenant, command: Command, *, deadline_s: float | None = None, operation: str = ""
    ) -> Acknowledged:
        """Acknowledge one command once it is durable; ``operation`` is what it is called in the outbox if not its verb.

        Raises the memory server's refusal, OutboxFullError, and for conditional writes also
        ComponentUnavailableError or CircuitBreakerOpenError: those are never queued.
        """
        # What the client sent, before anything is assigned: a repetition must be known as one.
        fingerprint = self.encode(command)[1] if command.request_id else b""
        command = prepared(with_derived_id(tenant, command))
        if is_conditional(command):
            return await self._decided(tenant, command)
        command = with_request_id(command)
        verb, payload = self.encode(command)
        draft = Draft(
            entry_id=new_memory_id(),
            request_id=command.request_id,
            operation=operation or verb,
            touched=touched(command),
            payload=payload,
            origin_at=self.clock.now(),
            fingerprint=fingerprint,
        )
        answer = await self.submit(tenant, draft, deadline_s)
        if answer.written is not None:
            return Acknowledged(Durability.STORED, answer.written.memory, answer.written)
        # A repeated request finds its first entry: what was accepted then is what will be stored.
        return Acknowledged(Durability.QUEUED, _memory_of(command, answer))

    async def _decided(self, tenant: Tenant, command: Command) -> Acknowledged:
        await self.pending.noted()
        if any(self.pending.any_touching(tenant, place) for place in touched(command)):
            raise ComponentUnavailableError(
                "this memory has a write that is not stored yet, so a condition on it cannot be decided; try again",
                component="outbox",
                retry_after_s=1.0,
            )
        written = await self.long_term.write(tenant, command)
        return Acknowledged(Durability.STORED, written.memory, written)


def prepared(command: Command) -> Command:
    """Complete a command as the memory server would, so that its ids are final before it is acknowledged."""
    match command:
        case Remember():
            return completed(command)
        case Update() if command.memory.embedding is not None:
            return replace(command, memory=replace(command.memory, embedding=unit(command.memory.embedding)))
        case _:
            return command


def with_derived_id(tenant: Tenant, command: Command) -> Command:
    """Give a new memory an id that its request decides, so that a repeated request means the same memory."""
    if not isinstance(command, Remember) or not command.request_id:
        return command
    memory = command.memory
    if memory.memory_id or memory.key:
        return command
    derived = keyed_memory_id(f"request:{tenant.name}", command.request_id)
    return replace(command, memory=replace(memory, memory_id=derived))


def is_conditional(command: Command) -> bool:
    """Whether the outcome depends on what is stored."""
    return command.if_match is not None or (isinstance(command, Remember) and command.if_absent)


def with_request_id(command: Command) -> Command:
    """Give a command a request id unless its writer did."""
    return command if command.request_id else replace(command, request_id=f"{OWN_PREFIX}{new_memory_id()}")


def _memory_of(command: Command, answer: Accepted) -> Memory | None:
    match command:
        case Remember():
            return replace(command.memory, memory_id=answer.touched[0])
        case Forget():
            return None
        case _:
            return None

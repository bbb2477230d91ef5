"""The verb *write*: remember, update and forget, one at a time or many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from memory_server.ports import Journal
from soma_contract.completing import completed, unit
from soma_contract.errors import DimensionMismatchError, SomaError
from soma_contract.limits import LIMITS
from soma_contract.memory import Command, Forget, Memory, Origin, Remember, Written
from soma_contract.tenant import Tenant
from soma_contract.tokenizer import count_tokens

LONG_ENTRY = "LONG_ENTRY"
"""Warning on a memory whose text is over 400 tokens: it is kept whole and summarised in context."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Writes memories to the truth; an answer means the transaction is on disk."""

    journal: Journal
    dimension: int
    profile: str
    on_written: Callable[[], None] = lambda: None
    refer: Callable[[Tenant, Sequence[Memory]], Awaitable[None]] | None = None
    """Makes the links that stored payloads name; done before the memories are acknowledged."""

    async def write(
        self,
        tenant: Tenant,
        command: Command,
        *,
        origin: Origin | None = None,
        deadline_s: float | None = None,
    ) -> Written:
        """Commit one command.  Raises the error the journal refused it with."""
        (answer,) = await self.write_many(tenant, [command], origin=origin, deadline_s=deadline_s)
        if isinstance(answer, SomaError):
            raise answer
        return answer

    async def write_many(
        self,
        tenant: Tenant,
        commands: Sequence[Command],
        *,
        origin: Origin | None = None,
        atomic: bool = False,
        deadline_s: float | None = None,
    ) -> list[Written | SomaError]:
        """Commit commands in order, each with its own answer; atomic ones all or none (raises)."""
        prepared: list[Command] = []
        refused: dict[int, SomaError] = {}
        for position, command in enumerate(commands):
            try:
                prepared.append(self.prepared(command))
            except SomaError as error:
                if atomic:
                    raise
                refused[position] = error
        committed: list[Written | SomaError] = []
        if prepared:
            committed = await self.journal.write(tenant, prepared, origin=origin, atomic=atomic, deadline_s=deadline_s)
            self.on_written()
            if self.refer is not None:
                stored = [one.memory for one in committed if not isinstance(one, SomaError) and one.memory]
                await self.refer(tenant, stored)
        answers = iter(committed)
        return [refused[at] if at in refused else _with_warnings(next(answers)) for at in range(len(commands))]

    def prepared(self, command: Command) -> Command:
        """Return the command completed and checked against the tenant's embedding profile.

        Raises DimensionMismatchError when a supplied embedding has another dimension.
        """
        match command:
            case Remember():
                command = completed(command)
                if command.memory.embedding is not None:
                    self._check_dimension(command.memory.embedding.dimension)
                    if not command.memory.embedding_model:
                        memory = replace(command.memory, embedding_model=self.profile)
                        command = replace(command, memory=memory)
            case Forget():
                pass
            case _ if command.memory.embedding is not None:
                self._check_dimension(command.memory.embedding.dimension)
                memory = replace(command.memory, embedding=unit(command.memory.embedding))
                command = replace(command, memory=memory)
        return command

    def _check_dimension(self, dimension: int) -> None:
        if dimension != self.dimension:
            raise DimensionMismatchError(expected=str(self.dimension), actual=str(dimension))


def _with_warnings(answer: Written | SomaError) -> Written | SomaError:
    if isinstance(answer, SomaError) or answer.memory is None:
        return answer
    # A word is at least one token, and a token at least one byte: the cheap bound settles most.
    if len(answer.memory.text) <= LIMITS.long_entry_tokens:
        return answer
    if count_tokens(answer.memory.text) <= LIMITS.long_entry_tokens:
        return answer
    return replace(answer, warnings=(*answer.warnings, LONG_ENTRY))

"""The verb *remember* for batches on the brain: straight to the memory server, stored or refused, never queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from brain_server.core.remembering import prepared
from brain_server.domain.pending import touched
from brain_server.ports import PendingWrites
from soma_contract.errors import ComponentUnavailableError, SomaError, field_path
from soma_contract.memory import Command, Remember, Written
from soma_contract.tenant import Tenant

RETRY_AFTER_S = 1.0


class LongTermBatches(Protocol):
    """Where batches are stored."""

    async def remember_batch(
        self, tenant: Tenant, commands: Sequence[Remember], *, atomic: bool
    ) -> list[Written | SomaError]:
        """Store commands, each with its own answer; atomic ones all or none (raises)."""
        ...


@dataclass(frozen=True, slots=True)
class Batching:
    """Stores batches, of memories that have no write of their own waiting."""

    pending: PendingWrites
    long_term: LongTermBatches

    async def remember(
        self, tenant: Tenant, items: Sequence[Remember | SomaError], *, atomic: bool
    ) -> list[Written | SomaError]:
        """Store what may be stored now; each item has its own answer, those that came refused keep theirs.

        Raises what refuses an atomic batch, CircuitBreakerOpenError, ComponentUnavailableError.
        """
        await self.pending.noted()
        checked = [self._checked(tenant, item, place if atomic else None) for place, item in enumerate(items)]
        commands = [one for one in checked if not isinstance(one, SomaError)]
        answers = iter(await self.long_term.remember_batch(tenant, commands, atomic=atomic) if commands else ())
        return [one if isinstance(one, SomaError) else next(answers) for one in checked]

    def _checked(self, tenant: Tenant, item: Remember | SomaError, place: int | None) -> Remember | SomaError:
        """The item completed, or why not; of an atomic batch (``place`` given) that is raised."""
        if isinstance(item, SomaError):
            return item
        try:
            with field_path("" if place is None else f"items[{place}]"):
                command = self._complete(item)
            if any(self.pending.any_touching(tenant, one) for one in touched(command)):
                raise ComponentUnavailableError(
                    "this memory has a write that is not stored yet; try again when it is",
                    component="outbox",
                    retry_after_s=RETRY_AFTER_S,
                )
        except SomaError as error:
            if place is not None:
                raise
            return error
        return command

    def _complete(self, item: Remember) -> Remember:
        command: Command = prepared(item)
        assert isinstance(command, Remember)
        return command

"""The verbs *link*, *unlink* and *reinforce* on the brain: on this disk first, then at the memory server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from brain_server.domain.entry import Draft
from brain_server.domain.pending import places
from brain_server.domain.settled import OWN_PREFIX
from brain_server.ports import Clock, PendingWrites
from soma_contract.errors import ComponentUnavailableError, RequestIdReusedError
from soma_contract.ids import keyed_memory_id, new_memory_id
from soma_contract.links import Evidence, Link, LinkWritten, MakeLink, Reinforced, RemoveLink, UseTogether
from soma_contract.memory import Durability, Target
from soma_contract.tenant import Tenant

FRAMES_IN_FLIGHT = 32
"""So many frames of a Reinforce are on their way at a time."""

Change = MakeLink | RemoveLink | Evidence


class SubmitChange(Protocol):
    """Appends a change of links to the outbox and sends it, waiting until shortly before the deadline."""

    async def __call__(self, tenant: Tenant, draft: Draft, deadline_s: float | None) -> LinkWritten | Reinforced | None:
        """Return what it did once stored, None when it is queued; raises the memory server's refusal."""


class LongTermLinks(Protocol):
    """The links of the memory server."""

    async def change(self, tenant: Tenant, change: Change) -> LinkWritten | Reinforced:
        """Commit one change."""


@dataclass(frozen=True, slots=True)
class LinkAcknowledged:
    """A change that survives a power cut; ``written`` says what it did once it is STORED.

    ``link`` is the link made, with the ids of its ends as far as they are known.
    """

    durability: Durability
    link: Link | None = None
    written: LinkWritten | None = None


@dataclass(frozen=True, slots=True)
class Linking:
    """Changes links outbox-first; conditional changes go straight to the memory server, which alone can decide them."""

    submit: SubmitChange
    pending: PendingWrites
    long_term: LongTermLinks
    encode: Callable[[Change], tuple[str, bytes]]
    clock: Clock

    async def write(
        self, tenant: Tenant, command: MakeLink | RemoveLink, *, deadline_s: float | None = None
    ) -> LinkAcknowledged:
        """Acknowledge one link or unlink once it is durable.

        Raises the memory server's refusal, OutboxFullError, and for conditional changes ComponentUnavailableError
        or CircuitBreakerOpenError: those are never queued.
        """
        touched = (*places(command.source), *places(command.target))
        if command.if_match is not None:
            await self.pending.noted()
            if any(self.pending.any_touching(tenant, place) for place in touched):
                raise ComponentUnavailableError(
                    "an end of this link has a write that is not stored yet, so no condition can be decided; try again",
                    component="outbox",
                    retry_after_s=1.0,
                )
            written = await self.long_term.change(tenant, command)
            assert isinstance(written, LinkWritten)
            return LinkAcknowledged(Durability.STORED, written.link, written)
        # What the client sent, before an id is assigned: a repetition must be known as one.
        fingerprint = self.encode(command)[1] if command.request_id else b""
        if not command.request_id:
            command = replace(command, request_id=f"{OWN_PREFIX}{new_memory_id()}")
        stored = await self._submitted(tenant, command, command.request_id, touched, fingerprint, deadline_s)
        if isinstance(stored, LinkWritten):
            return LinkAcknowledged(Durability.STORED, stored.link, stored)
        return LinkAcknowledged(Durability.QUEUED, _link_of(command))

    async def reinforce(
        self, tenant: Tenant, frames: AsyncIterator[Evidence], *, deadline_s: float | None = None
    ) -> tuple[Durability, Reinforced]:
        """Acknowledge frames of evidence once all are durable; STORED when every one of them is.

        Raises the memory server's refusal of any of them.
        """
        slots = asyncio.Semaphore(FRAMES_IN_FLIGHT)
        total, durability = Reinforced(), Durability.STORED

        async def one(frame: Evidence) -> None:
            nonlocal total, durability
            try:
                stored = await self._told(tenant, frame, deadline_s)
            finally:
                slots.release()
            total = total.plus(stored or Reinforced(applied=1))
            durability = durability if stored is not None else Durability.QUEUED

        async with asyncio.TaskGroup() as group:
            async for frame in frames:
                await slots.acquire()
                group.create_task(one(frame))
        return durability, total

    async def _told(self, tenant: Tenant, frame: Evidence, deadline_s: float | None) -> Reinforced | None:
        learnt = frame.learnt
        touched = learnt.memory_ids if isinstance(learnt, UseTogether) else (learnt.memory_id,)
        try:
            stored = await self._submitted(tenant, frame, frame.frame_id, touched, b"", deadline_s)
        except RequestIdReusedError:
            # The frame is known by its number; what it says the second time does not matter.
            return Reinforced(repeated=1)
        assert not isinstance(stored, LinkWritten)
        return stored

    async def _submitted(
        self,
        tenant: Tenant,
        change: Change,
        request_id: str,
        touched: tuple[str, ...],
        fingerprint: bytes,
        deadline_s: float | None,
    ) -> LinkWritten | Reinforced | None:
        operation, payload = self.encode(change)
        draft = Draft(
            entry_id=new_memory_id(),
            request_id=request_id,
            operation=operation,
            touched=tuple(dict.fromkeys(touched)),
            payload=payload,
            origin_at=self.clock.now(),
            fingerprint=fingerprint,
        )
        return await self.submit(tenant, draft, deadline_s)


def _link_of(command: MakeLink | RemoveLink) -> Link | None:
    """The link as far as it is known before it is stored."""
    if isinstance(command, RemoveLink):
        return None
    return Link(
        _id_of(command.source),
        _id_of(command.target),
        command.relation,
        command.strength,
        command.metadata_json,
        command.valid_from,
        command.valid_until,
    )


def _id_of(target: Target) -> str:
    if target.memory_id or not target.key:
        return target.memory_id
    return keyed_memory_id(target.namespace, target.key)

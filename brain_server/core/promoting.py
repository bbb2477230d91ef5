"""The verb *promote*: items of working memory that have earned it become memories, through the outbox."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from brain_server.core.linking import Linking
from brain_server.core.remembering import Acknowledged, Remembering
from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.item import Item, Promotion
from brain_server.domain.promotion import ASKED
from brain_server.ports import PendingWrites, SessionName
from soma_contract.errors import SessionNotFoundError, SomaError, WriteConflictError
from soma_contract.links import MakeLink
from soma_contract.memory import Durability, Kind, Memory, Provenance, Remember, Target
from soma_contract.tenant import Tenant

log = logging.getLogger(__name__)

PROMOTE = "promote"
PROMOTED_FROM = "promoted_from"
_LINKED_S = 2.0
"""How long a refusal of the link is waited for; told to nobody it would be a dead letter."""


@dataclass(frozen=True, slots=True)
class Promoted:
    """What became of a promotion; without a durability it was refused, for the reason given."""

    item_id: str
    memory_id: str
    requested: bool
    durability: Durability | None = None
    error: SomaError | None = None


@dataclass(frozen=True, slots=True)
class Promoting:
    """Copies items to long-term memory; a failure is tried again at the next tick, a queued copy by the outbox."""

    working: WorkingMemory
    remembering: Remembering
    pending: PendingWrites
    linking: Linking | None = None
    """Links what is promoted to what its session promoted, or had come from, before."""
    _listening: dict[SessionName, list[list[Promoted]]] = field(default_factory=dict)

    async def promote(
        self,
        tenant: Tenant,
        session_id: str,
        promotion: Promotion,
        *,
        namespace: str = "",
        kind: Kind | None = None,
    ) -> Promoted:
        """Copy one item and tell the session's open streams; an error is returned, not raised."""
        name = SessionName(tenant, session_id)
        requested = promotion.reason == ASKED
        acknowledged: list[Acknowledged] = []

        async def write(_: Tenant, __: str, item: Promotion) -> str:
            memory_id, done = await self._write(name, item, namespace, kind)
            acknowledged.append(done)
            return memory_id

        try:
            memory_id = await self.working.promote(name, promotion, write)
        except SomaError as error:
            return Promoted(promotion.item.item_id, promotion.item.item_id, requested, error=error)
        promoted = Promoted(promotion.item.item_id, memory_id, requested, acknowledged[0].durability)
        for listener in self._listening.get(name, ()):
            listener.append(promoted)
        return promoted

    async def on_tick(self, tenant: Tenant, session_id: str, promotion: Promotion) -> str:
        """Write one item to long-term memory and return its id there; what working memory's own ticks call."""
        name = SessionName(tenant, session_id)
        memory_id, done = await self._write(name, promotion, "", None)
        promoted = Promoted(promotion.item.item_id, memory_id, False, done.durability)
        for listener in self._listening.get(name, ()):
            listener.append(promoted)
        return memory_id

    async def promote_items(
        self,
        tenant: Tenant,
        session_id: str,
        item_ids: Iterable[str],
        *,
        namespace: str = "",
        kind: Kind | None = None,
    ) -> list[Promoted]:
        """Copy the items named now, in their order; one that was promoted before stays as it is.

        Raises SessionNotFoundError.
        """
        asked = [*item_ids]
        present = {item.item_id: item for item in await self.working.items(tenant, session_id)}
        promotions = {each.item.item_id: each for each in await self.working.ask_promotion(tenant, session_id, asked)}
        done: dict[str, Promoted] = {}
        for item_id in asked:
            if item_id in done:
                continue
            if item_id in promotions:
                done[item_id] = await self.promote(
                    tenant, session_id, promotions[item_id], namespace=namespace, kind=kind
                )
            elif item_id in present:
                done[item_id] = self._before(tenant, present[item_id])
            else:
                missing = SessionNotFoundError("no such item in this session; list its items", session_id=session_id)
                done[item_id] = Promoted(item_id, item_id, True, error=missing)
        return [done[item_id] for item_id in asked]

    @contextmanager
    def listening(self, tenant: Tenant, session_id: str) -> Iterator[list[Promoted]]:
        """Collect what is promoted out of a session while the block runs; the caller empties the list."""
        name = SessionName(tenant, session_id)
        promoted: list[Promoted] = []
        listeners = self._listening.setdefault(name, [])
        listeners.append(promoted)
        try:
            yield promoted
        finally:
            listeners[:] = [each for each in listeners if each is not promoted]
            if not listeners:
                self._listening.pop(name, None)

    def _before(self, tenant: Tenant, item: Item) -> Promoted:
        if not item.long_term_id:
            # Its promotion is under way this very moment.
            return Promoted(item.item_id, item.item_id, True, error=WriteConflictError())
        queued = self.pending.any_touching(tenant, item.long_term_id)
        durability = Durability.QUEUED if queued else Durability.STORED
        return Promoted(item.item_id, item.long_term_id, True, durability)

    async def _write(
        self, name: SessionName, promotion: Promotion, namespace: str, kind: Kind | None
    ) -> tuple[str, Acknowledged]:
        """Write the memory, and the link to the one before it; return its id and where it is durable."""
        before = self.working.long_term_ids(name.tenant, name.session_id)
        memory = await self._memory(name, promotion, namespace, kind)
        command = Remember(memory, request_id=_request_id(memory))
        done = await self.remembering.write(name.tenant, command, operation=PROMOTE)
        if self.linking is not None and before and before[-1] != memory.memory_id:
            link = MakeLink(
                Target(memory_id=memory.memory_id),
                Target(memory_id=before[-1]),
                relation=PROMOTED_FROM,
                metadata_json=json.dumps({"session_id": name.session_id, "reason": promotion.reason}),
                request_id=f"promoted-from-{memory.memory_id}",
            )
            try:
                await self.linking.write(name.tenant, link, deadline_s=_LINKED_S)
            except SomaError as error:
                # The memory before it was forgotten, or the outbox is full: the promotion stands.
                log.info("a promoted memory could not be linked: %s", error.reason)
        return memory.memory_id, done

    async def _memory(self, name: SessionName, promotion: Promotion, namespace: str, kind: Kind | None) -> Memory:
        item = promotion.item
        rules = self.working.rules(name.tenant)
        return Memory(
            memory_id=item.long_term_id or item.item_id,
            namespace=namespace or rules.promotion_namespace,
            kind=kind or Kind(rules.promotion_kind),
            persona_id=await self.working.persona(name.tenant, name.session_id),
            text=item.text,
            payload_json=item.payload_json,
            actor=item.actor,
            session_id=name.session_id,
            sequence=item.sequence or None,
            provenance=Provenance(source=f"working memory: {promotion.reason}"),
            occurred_at=datetime.fromtimestamp(item.occurred_s or item.admitted_s, UTC),
        )


def _request_id(memory: Memory) -> str:
    """Name the promotion of this content: tried again it is the same request, with other content another."""
    digest = hashlib.blake2b(digest_size=12)
    for part in (memory.namespace, memory.kind, memory.text, memory.payload_json, memory.actor):
        digest.update(f"{len(part)}:{part}".encode())
    return f"promote-{memory.memory_id}-{digest.hexdigest()}"

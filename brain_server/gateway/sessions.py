"""SessionService of the memory server as the place where other brains find this one's sessions."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC

from brain_server.domain.item import SessionState
from brain_server.domain.item_codec import SNAPSHOT_FORMAT, items_of, snapshot_of
from brain_server.gateway.wire import MemoryWire
from soma.memory.v1 import session_service_pb2 as pb
from soma.memory.v1.session_service_pb2_grpc import SessionServiceStub
from soma_contract.errors import SessionNotFoundError
from soma_contract.limits import LIMITS
from soma_contract.tenant import Tenant

_log = logging.getLogger("soma.brain")

ASK_S = 2.0
"""Seconds an agent waits at most to learn whether its session is elsewhere."""
_PAGE = 1_000


@dataclass(slots=True)
class MirroredSessions:
    """The SessionMirror port over gRPC; what is saved carries this brain's name, epoch and a growing version."""

    wire: MemoryWire
    brain_id: str
    _version: int = field(default=0)

    async def fetch(self, tenant: Tenant, session_id: str) -> SessionState | None:
        """Take a session over: return its last snapshot, now this brain's, or None."""
        request = pb.LoadSessionRequest(session_id=session_id, take_over=True, brain_id=self.brain_id)
        try:
            answer = await self.wire.unary(self._stub.LoadSession, request, tenant, most_s=ASK_S)
        except SessionNotFoundError:
            return None
        held = answer.snapshot
        if held.content_format != SNAPSHOT_FORMAT:
            _log.error("a session's snapshot has the unknown format %s; it begins anew", held.content_format)
            return None
        return SessionState(
            session_id=session_id,
            last_sequence=held.sequence,
            touched_s=held.save_time.ToDatetime(tzinfo=UTC).timestamp(),
            items=await asyncio.to_thread(items_of, held.content),
            persona_id=held.persona_id,
            epoch=held.epoch,
        )

    async def put(self, tenant: Tenant, state: SessionState) -> int:
        """Keep a session's snapshot; return the epoch it is held under, 0 if the session is another brain's by now."""
        content, omitted = await asyncio.to_thread(snapshot_of, state, LIMITS.response_bytes)
        if omitted:
            _log.warning("a session is too large for its snapshot: %d items were left out", omitted)
        snapshot = pb.SessionSnapshot(
            session_id=state.session_id,
            brain_id=self.brain_id,
            persona_id=state.persona_id,
            epoch=max(1, state.epoch),
            sequence=state.last_sequence,
            item_count=len(state.items) - omitted,
            omitted_items=omitted,
            content_format=SNAPSHOT_FORMAT,
            content=content,
        )
        for _ in range(2):
            snapshot.version = self._version = max(self._version + 1, time.time_ns() // 1_000)
            answer = await self.wire.unary(self._stub.SaveSession, pb.SaveSessionRequest(snapshot=snapshot), tenant)
            if answer.saved:
                return int(answer.epoch)
            if answer.epoch != snapshot.epoch or answer.version < snapshot.version:
                break
            # The clock was set back since the last save: go on from there.
            self._version = answer.version
        return 0

    async def drop(self, tenant: Tenant, session_id: str) -> None:
        """Remove a session's snapshot."""
        await self.wire.unary(self._stub.DeleteSession, pb.DeleteSessionRequest(session_id=session_id), tenant)

    async def lost(self, tenant: Tenant) -> list[str]:
        """Return the sessions of a tenant that are other brains'."""
        lost: list[str] = []
        token = ""
        while True:
            request = pb.ListSessionsRequest(page_size=_PAGE, page_token=token)
            answer = await self.wire.unary(self._stub.ListSessions, request, tenant)
            lost += [each.session_id for each in answer.snapshots if each.brain_id != self.brain_id]
            token = answer.next_page_token
            if not token:
                return lost

    @property
    def _stub(self) -> SessionServiceStub:
        return SessionServiceStub(self.wire.channel)

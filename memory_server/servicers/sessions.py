"""SessionService: what brains keep here of their working memory."""

from __future__ import annotations

from typing import Any

from memory_server.core.sessions import Sessions
from memory_server.domain.sessions import Snapshot, SnapshotListing
from rpckit.call import current_tenant
from rpckit.paging import fitting
from soma.memory.v1 import session_service_pb2 as pb
from soma.memory.v1 import session_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import timestamp
from soma_contract.errors import PageTokenInvalidError
from soma_contract.limits import LIMITS

_TOKEN = "after:"  # noqa: S105 - opens a page, no door


class SessionServicer(rpc.SessionServiceServicer):
    """Snapshots of the tenant's sessions, for brains only."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def SaveSession(self, request: pb.SaveSessionRequest, context: Any) -> pb.SaveSessionResponse:
        checks = Checks()
        snapshot = snapshot_from_pb(request.snapshot, checks)
        checks.done()
        done = await self._sessions.save(current_tenant(), snapshot)
        return pb.SaveSessionResponse(saved=done.saved, epoch=done.epoch, version=done.version)

    async def LoadSession(self, request: pb.LoadSessionRequest, context: Any) -> pb.LoadSessionResponse:
        checks = Checks()
        session_id = checks.required("session_id", request.session_id)
        brain_id = checks.text("brain_id", request.brain_id)
        if request.take_over and not brain_id:
            checks.fail("brain_id", "is required with take_over")
        checks.done()
        new_owner = brain_id if request.take_over else ""
        snapshot = await self._sessions.load(current_tenant(), session_id, new_owner=new_owner)
        return pb.LoadSessionResponse(snapshot=snapshot_to_pb(snapshot))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        checks = Checks()
        listing = SnapshotListing(
            limit=checks.page_size("page_size", request.page_size),
            after=_after(request.page_token),
            brain_id=checks.text("brain_id", request.brain_id),
            persona_id=checks.text("persona_id", request.persona_id),
            saved_after=checks.time("saved_after_time", request.HasField("saved_after_time"), request.saved_after_time),
        )
        checks.done()
        page = [snapshot_to_pb(each) for each in await self._sessions.list_snapshots(current_tenant(), listing)]
        fits = fitting([snapshot.ByteSize() for snapshot in page])
        more = len(page) == listing.limit or fits < len(page)
        return pb.ListSessionsResponse(
            snapshots=page[:fits], next_page_token=_TOKEN + page[fits - 1].session_id if more else ""
        )

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Any) -> pb.DeleteSessionResponse:
        checks = Checks()
        session_id = checks.required("session_id", request.session_id)
        checks.done()
        epoch = request.epoch if request.HasField("epoch") else None
        return pb.DeleteSessionResponse(existed=await self._sessions.delete(current_tenant(), session_id, epoch=epoch))


def snapshot_from_pb(wire: pb.SessionSnapshot, checks: Checks) -> Snapshot:
    """Read a snapshot as a brain sends it."""
    if wire.version < 1:
        checks.fail("snapshot.version", "must be more than 0")
    if wire.epoch < 1:
        checks.fail("snapshot.epoch", "must be at least 1")
    if len(wire.content) > LIMITS.response_bytes:
        checks.fail("snapshot.content", f"must have at most {LIMITS.response_bytes} bytes")
    if min(wire.sequence, wire.item_count, wire.omitted_items) < 0:
        checks.fail("snapshot", "must not have negative counts")
    return Snapshot(
        session_id=checks.required("snapshot.session_id", wire.session_id),
        brain_id=checks.required("snapshot.brain_id", wire.brain_id),
        version=wire.version,
        epoch=wire.epoch,
        persona_id=checks.text("snapshot.persona_id", wire.persona_id),
        sequence=wire.sequence,
        item_count=wire.item_count,
        omitted_items=wire.omitted_items,
        content_format=checks.text("snapshot.content_format", wire.content_format),
        content=wire.content,
    )


def snapshot_to_pb(snapshot: Snapshot) -> pb.SessionSnapshot:
    """Write a snapshot."""
    return pb.SessionSnapshot(
        session_id=snapshot.session_id,
        brain_id=snapshot.brain_id,
        persona_id=snapshot.persona_id,
        epoch=snapshot.epoch,
        version=snapshot.version,
        sequence=snapshot.sequence,
        item_count=snapshot.item_count,
        omitted_items=snapshot.omitted_items,
        content_format=snapshot.content_format,
        content=snapshot.content,
        save_time=timestamp(snapshot.saved_at),
    )


def _after(token: str) -> str:
    if token and not token.startswith(_TOKEN):
        raise PageTokenInvalidError
    return token.removeprefix(_TOKEN)

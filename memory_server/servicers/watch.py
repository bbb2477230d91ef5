"""WatchService on the memory server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from memory_server.core.watching import Watch, Watching
from memory_server.servicers.memory import begin
from rpckit.call import current_caller, current_tenant
from rpckit.interceptors.admission import Drain
from soma.memory.v1 import watch_service_pb2 as pb
from soma.memory.v1 import watch_service_pb2_grpc as rpc
from soma_contract.changes import ChangeSet
from soma_contract.convert.changes import WATCHED_NAMESPACES, change_set_to_pb, checkpoint_to_pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import view_from_pb
from soma_contract.errors import WatcherTooSlowError
from soma_contract.tenant import Caller


class WatchServicer(rpc.WatchServiceServicer):
    """The changelog of the calling tenant."""

    def __init__(self, watching: Watching, drain: Drain) -> None:
        self._watching = watching
        self._drain = drain

    async def Watch(self, request: pb.WatchRequest, context: Any) -> None:  # type: ignore[override] # it writes itself
        _, checks = begin()
        watch = _watch_from_pb(request, checks, current_caller())
        checks.done()
        through = request.after_revision
        async for found in self._watching.watch(current_tenant(), watch, self._drain.started):
            if isinstance(found, ChangeSet):
                frame = change_set_to_pb(found, watch.view, ids_only=request.ids_only)
            else:
                frame = checkpoint_to_pb(found)
            try:
                async with asyncio.timeout(self._watching.rules.stall_s):
                    await context.write(frame)
            except TimeoutError:
                raise WatcherTooSlowError(through=str(through)) from None
            if not isinstance(found, ChangeSet) or found.complete:
                through = found.revision


def _watch_from_pb(request: pb.WatchRequest, checks: Checks, caller: Caller) -> Watch:
    if request.HasField("after_revision") and request.after_revision < 0:
        checks.fail("after_revision", "must not be negative")
    if len(request.namespace_ids) > WATCHED_NAMESPACES:
        checks.fail("namespace_ids", f"must hold at most {WATCHED_NAMESPACES} namespaces")
    named = {
        checks.namespace(f"namespace_ids[{position}]", name)
        for position, name in enumerate(request.namespace_ids[:WATCHED_NAMESPACES])
    }
    caller.require_namespaces(named)
    reaches: Callable[[str], bool] = named.__contains__ if named else caller.may_use_namespace
    return Watch(
        after_revision=request.after_revision if request.HasField("after_revision") else None,
        links=request.include_links,
        view=view_from_pb(request.view, checks, "view"),
        reaches=reaches,
    )

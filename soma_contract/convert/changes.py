"""Changes and checkpoints from and to the wire."""

from __future__ import annotations

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import watch_service_pb2 as pb
from soma_contract.changes import (
    Change,
    ChangeSet,
    Checkpoint,
    EndCause,
    LinkEnded,
    LinkStored,
    MemoryEnded,
    MemoryStored,
)
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import memory_from_pb, memory_to_pb, timestamp
from soma_contract.errors import InternalError
from soma_contract.links import Link, LinkKey
from soma_contract.memory import View

WATCHED_NAMESPACES = 256

_CAUSES_PB = {cause: pb.EndCause.Value(f"END_CAUSE_{cause.name}") for cause in EndCause}
_CAUSES = {wire: cause for cause, wire in _CAUSES_PB.items()}


def change_set_to_pb(changes: ChangeSet, view: View, *, ids_only: bool) -> pb.WatchResponse:
    """Write changes of a revision."""
    return pb.WatchResponse(
        changes=pb.ChangeSet(
            revision=changes.revision,
            commit_time=timestamp(changes.committed_at),
            changes=[_change_to_pb(change, view, ids_only=ids_only) for change in changes.changes],
            complete=changes.complete,
        )
    )


def checkpoint_to_pb(checkpoint: Checkpoint) -> pb.WatchResponse:
    """Write a checkpoint."""
    return pb.WatchResponse(
        checkpoint=pb.WatchCheckpoint(revision=checkpoint.revision, server_time=timestamp(checkpoint.at))
    )


def watched_from_pb(wire: pb.WatchResponse) -> ChangeSet | Checkpoint:
    """Read a frame that a server sent."""
    checks = Checks()
    if wire.HasField("checkpoint"):
        at = checks.time("server_time", wire.checkpoint.HasField("server_time"), wire.checkpoint.server_time)
        if at is None:
            raise InternalError
        return Checkpoint(wire.checkpoint.revision, at)
    changes = wire.changes
    committed_at = checks.time("commit_time", changes.HasField("commit_time"), changes.commit_time)
    if committed_at is None:
        raise InternalError
    return ChangeSet(changes.revision, committed_at, tuple(map(_change_from_pb, changes.changes)), changes.complete)


def _change_to_pb(change: Change, view: View, *, ids_only: bool) -> pb.Change:
    match change:
        case MemoryStored(memory, redacted):
            wire = memory_to_pb(memory, view)
            if ids_only or redacted:
                named = memory_pb2.Memory(
                    memory_id=memory.memory_id, namespace=memory.namespace, key=memory.key, version=memory.version
                )
                return pb.Change(memory_stored=pb.MemoryStored(memory=named, redacted=redacted and not ids_only))
            return pb.Change(memory_stored=pb.MemoryStored(memory=wire))
        case MemoryEnded():
            return pb.Change(
                memory_ended=pb.MemoryEnded(
                    memory_id=change.memory_id,
                    namespace_id=change.namespace,
                    key=change.key,
                    version=change.version,
                    cause=_CAUSES_PB[change.cause],
                )
            )
        case LinkStored(link):
            return pb.Change(
                link_stored=pb.LinkStored(
                    source_id=link.source_id,
                    target_id=link.target_id,
                    relation=link.relation,
                    strength=link.strength,
                    metadata_json="" if ids_only else link.metadata_json,
                    valid_from_time=timestamp(link.valid_from),
                    valid_until_time=timestamp(link.valid_until),
                    version=link.version,
                )
            )
        case LinkEnded(key, cause):
            return pb.Change(
                link_ended=pb.LinkEnded(
                    source_id=key.source_id, target_id=key.target_id, relation=key.relation, cause=_CAUSES_PB[cause]
                )
            )


def _change_from_pb(wire: pb.Change) -> Change:
    match wire.WhichOneof("subject"):
        case "memory_stored":
            stored = wire.memory_stored
            return MemoryStored(memory_from_pb(stored.memory, Checks(), "memory", keep_times=True), stored.redacted)
        case "memory_ended":
            ended = wire.memory_ended
            return MemoryEnded(
                ended.memory_id,
                ended.namespace_id,
                ended.version,
                ended.key,
                _CAUSES.get(ended.cause, EndCause.FORGOTTEN),
            )
        case "link_stored":
            return LinkStored(_link_from_pb(wire.link_stored))
        case "link_ended":
            gone = wire.link_ended
            key = LinkKey(gone.source_id, gone.relation, gone.target_id)
            return LinkEnded(key, _CAUSES.get(gone.cause, EndCause.FORGOTTEN))
        case _:
            raise InternalError("the server told of a change that this client does not know; use a newer client")


def _link_from_pb(wire: pb.LinkStored) -> Link:
    checks = Checks()
    return Link(
        source_id=wire.source_id,
        target_id=wire.target_id,
        relation=wire.relation,
        strength=wire.strength,
        metadata_json=wire.metadata_json,
        valid_from=checks.time("valid_from_time", wire.HasField("valid_from_time"), wire.valid_from_time),
        valid_until=checks.time("valid_until_time", wire.HasField("valid_until_time"), wire.valid_until_time),
        version=wire.version,
    )

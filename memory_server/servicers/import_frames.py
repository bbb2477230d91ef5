"""Frames of an import, from and to the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

from memory_server.core.import_stream import Ack, Chunk, Drain, Finish, Finished, FrameIn, FrameOut, Open, Opened
from soma.batch.v1 import batch_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.records import check_chunk, import_job_to_pb, records_from_pb, refused_to_pb
from soma_contract.convert.streams import RECONNECT_AFTER_S
from soma_contract.errors import FieldViolationError


async def frames_in(requests: AsyncIterator[pb.ImportRecordsRequest], namespace: str) -> AsyncIterator[FrameIn]:
    """Read frames as they come; raises FieldViolationError for one that cannot be."""
    async for request in requests:
        which = request.WhichOneof("frame")
        if which == "chunk":
            check_chunk(request.chunk)
            records = records_from_pb(request.chunk.records, namespace)
            yield Chunk(request.chunk.offset, len(request.chunk.records), records)
        elif which == "open":
            yield Open(import_id_from_pb(request.open.import_id, "open.import_id"))
        elif which == "finish":
            yield Finish(request.finish.total)
        else:
            raise FieldViolationError.at("frame", "must open, bring a chunk or finish")


def frame_out(frame: FrameOut) -> pb.ImportRecordsResponse:
    """Write a frame."""
    match frame:
        case Opened():
            opened = pb.ImportOpened(committed_offset=frame.committed_offset, credit=frame.credit)
            return pb.ImportRecordsResponse(opened=opened)
        case Ack():
            ack = pb.ImportAck(
                committed_offset=frame.job.committed_offset,
                refused=map(refused_to_pb, frame.refused),
                credit=frame.credit,
                stored=frame.job.stored,
                refused_total=frame.job.refused,
                index_lag=frame.index_lag,
            )
            return pb.ImportRecordsResponse(ack=ack)
        case Drain():
            drain = pb.ImportDrain()
            drain.reconnect_after.FromSeconds(RECONNECT_AFTER_S)
            return pb.ImportRecordsResponse(drain=drain)
        case Finished():
            return pb.ImportRecordsResponse(finished=pb.ImportFinished(job=import_job_to_pb(frame.job)))


def import_id_from_pb(value: str, path: str = "import_id") -> str:
    """Read the id of a job; raises FieldViolationError."""
    checks = Checks()
    import_id = checks.memory_id(path, checks.required(path, value))
    checks.done()
    return import_id

"""A recall's answer on the wire: a frame for each hit, or few frames that hold them together; both read alike."""

from __future__ import annotations

import pytest

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.recalls import FRAME_BYTES, answer_from_pb, answer_to_pb, summary_from_pb
from soma_contract.recall import Leg, LegReport, LegState, Summary


def write(wire: pb.RecallHit, hit: pb.RecallHit) -> None:
    wire.CopyFrom(hit)


SUMMARY = Summary((LegReport(Leg.DENSE, LegState.RAN, 0.5, candidates=3),), considered=3, revision=7)


def hits(count: int, size: int = 10) -> list[pb.RecallHit]:
    return [
        pb.RecallHit(memory=memory_pb2.Memory(memory_id=str(number), text="x" * size), score=count - number)
        for number in range(count)
    ]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 2 * FRAME_BYTES), (40, 10), (9, FRAME_BYTES // 3)])
def test_an_answer_reads_alike_whichever_way_it_is_sent(count: int, size: int, together: bool) -> None:
    sent = hits(count, size)
    read: list[pb.RecallHit] = []
    frames = list(answer_to_pb(sent, write, SUMMARY, together=together))
    for number, frame in enumerate(frames, 1):
        more, summary = answer_from_pb(pb.RecallResponse.FromString(frame.SerializeToString()))
        read.extend(more)
        assert (number == len(frames)) == (summary is not None)
        if summary is not None:
            assert SUMMARY == summary_from_pb(summary)
    assert sent == read


def test_hits_together_are_one_frame_until_they_are_large() -> None:
    assert ["hits"] == [frame.WhichOneof("frame") for frame in answer_to_pb(hits(100), write, SUMMARY, together=True)]
    frames = list(answer_to_pb(hits(9, FRAME_BYTES // 3), write, SUMMARY, together=True))
    assert 1 < len(frames) < 9
    assert all(len(frame.hits.hits) == 1 or frame.ByteSize() <= FRAME_BYTES + 100 for frame in frames)
    assert [True] == [frame.hits.HasField("summary") for frame in frames][-1:]
    alone = [frame.WhichOneof("frame") for frame in answer_to_pb(hits(2), write, SUMMARY, together=False)]
    assert ["hit", "hit", "summary"] == alone

"""A recall's answer as it arrives: hits, best first, then the summary."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.recalls import answer_from_pb, hit_from_pb, summary_from_pb
from soma_contract.errors import UnavailableError
from soma_contract.recall import Hit, Recalled, Summary


class RecallStream(AsyncIterator[Hit]):
    """An async iterator of hits, best first; ``summary`` is there once they have all been read."""

    def __init__(self, frames: AsyncGenerator[pb.RecallResponse, None]) -> None:
        self._frames = frames
        self._hits: deque[pb.RecallHit] = deque()
        self._last: pb.RecallSummary | None = None
        self._summary: Summary | None = None

    @property
    def summary(self) -> Summary:
        """What was searched, and whether anything was left out; RuntimeError before the last hit was read."""
        if self._summary is None:
            raise RuntimeError("the summary comes after the last hit: read the hits first")
        return self._summary

    def __aiter__(self) -> RecallStream:
        return self

    async def __anext__(self) -> Hit:
        if self._summary is not None:
            raise StopAsyncIteration
        while not self._hits and self._last is None:
            await self._read()
        if self._hits:
            return hit_from_pb(self._hits.popleft())
        assert self._last is not None
        self._summary = summary_from_pb(self._last)
        await self._frames.aclose()
        raise StopAsyncIteration

    async def _read(self) -> None:
        async for frame in self._frames:
            hits, self._last = answer_from_pb(frame)
            self._hits.extend(hits)
            return
        # Hits without a summary are half an answer, and half an answer must not look like a whole one.
        raise UnavailableError("the answer broke off before its summary; recall again")

    async def all(self) -> Recalled:
        """The rest of the answer at once."""
        hits = tuple([hit async for hit in self])
        return Recalled(hits, self.summary)

    async def aclose(self) -> None:
        """Give the rest of the answer up."""
        await self._frames.aclose()

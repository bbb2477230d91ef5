"""One Observe stream at a time: batches, credit, drain, and what the embedder's absence does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from brain_server.core.observing import Observing
from brain_server.servicers.observing import CREDIT, ObserveStream
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma_contract.errors import ComponentUnavailableError, WindowExceededError
from tests.servicers.brain.kit import TENANT, Brain


class Line:
    """The client's end of a stream: what it sends, and what it was answered."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[pb.ObserveRequest | None] = asyncio.Queue()
        self.answered: list[pb.ObserveResponse] = []
        self.heard = asyncio.Event()
        self.listens = asyncio.Event()
        self.listens.set()

    def send(self, *texts: str, first: int = 1) -> None:
        for number, text in enumerate(texts, start=first):
            observation = pb.Observation(sequence=number, text=text)
            self.sent.put_nowait(pb.ObserveRequest(observation=observation))

    def end(self) -> None:
        self.sent.put_nowait(None)

    async def requests(self) -> AsyncIterator[pb.ObserveRequest]:
        while (request := await self.sent.get()) is not None:
            yield request

    async def write(self, frame: pb.ObserveResponse) -> None:
        await self.listens.wait()
        self.answered.append(frame)
        self.heard.set()

    @property
    def frames(self) -> list[str | None]:
        return [frame.WhichOneof("frame") for frame in self.answered]


def stream(brain: Brain, line: Line, draining: asyncio.Event | None = None) -> ObserveStream:
    return ObserveStream(brain.observing, brain.promoting, TENANT, line.write, draining or asyncio.Event())


async def test_everything_sent_before_the_half_close_is_answered_in_order(brain: Brain) -> None:
    line = Line()
    line.send(*(f"note {number}" for number in range(200)))
    line.end()
    await stream(brain, line).run("s", "", line.requests())
    assert ["opened", *["observed"] * 200] == line.frames
    assert [*range(1, 201)] == [frame.observed.sequence for frame in line.answered[1:]]


async def test_more_unanswered_observations_than_the_credit_end_the_stream(brain: Brain) -> None:
    line = Line()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(refusal(stream(brain, line), line))
        await line.heard.wait()
        line.listens.clear()
        line.send(*(f"note {number}" for number in range(CREDIT + 1)))
        await until(line.sent.empty)
        line.listens.set()
        error = await running
    assert isinstance(error, WindowExceededError)
    answered = len(line.answered) - 1
    assert CREDIT == answered, "what was within the credit is answered first"


async def test_a_draining_server_answers_what_it_read_and_says_where_it_stopped(brain: Brain) -> None:
    line, draining = Line(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stream(brain, line, draining).run("s", "", line.requests()))
        line.send("one", "two", "three")
        await until(lambda: len(line.answered) == 4)
        draining.set()
        await running
    assert ["opened", "observed", "observed", "observed", "drain"] == line.frames
    assert 3 == line.answered[-1].drain.sequence


async def test_observations_that_cannot_be_embedded_end_the_stream_and_use_up_no_number(brain: Brain) -> None:
    line = Line()
    line.send("first")
    line.end()
    broken = Observing(brain.working, Away(brain.vectors))  # type: ignore[arg-type] # the same methods
    serving = ObserveStream(broken, brain.promoting, TENANT, line.write, asyncio.Event())
    with pytest.raises(ComponentUnavailableError):
        await serving.run("s", "", line.requests())
    assert 0 == await brain.working.last_sequence(TENANT, "s")


async def test_promotions_by_the_ticks_are_told_with_the_next_answer(brain: Brain) -> None:
    line = Line()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stream(brain, line).run("s", "", line.requests()))
        observation = pb.Observation(sequence=1, text="a great success", reward=1.0)
        line.sent.put_nowait(pb.ObserveRequest(observation=observation))
        await until(lambda: len(line.answered) == 2)
        for _ in range(3):
            await brain.working.beat(brain.promoting.on_tick)
        line.send("what next", first=2)
        line.end()
        await running
    item_id = line.answered[1].observed.item.item_id
    assert [] == list(line.answered[1].observed.promoted)
    assert [(item_id, pb.PROMOTION_CAUSE_SALIENCE)] == [
        (each.memory_id, each.cause) for each in line.answered[2].observed.promoted
    ]
    assert "a great success" == brain.shelf.memories[item_id].text


class Away:
    """Vectors of an embedder that does not answer."""

    def __init__(self, vectors: Any) -> None:
        self.dimension = vectors.dimension

    async def of(self, texts: Sequence[str], **_: Any) -> list[Any]:
        raise ComponentUnavailableError(component="embedder")


async def refusal(serving: ObserveStream, line: Line) -> BaseException | None:
    """Run a stream to its error."""
    try:
        await serving.run("s", "", line.requests())
    except WindowExceededError as error:
        return error
    return None


async def until(done: Any) -> None:
    """Let others run until something is so."""
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - the loop only lets others run
            await asyncio.sleep(0)

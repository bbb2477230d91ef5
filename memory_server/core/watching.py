"""The verb *watch*: the changelog as a stream, followed by polling and woken by hints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from memory_server.bulk_ports import ChangeFeed, Line
from memory_server.ports import Clock
from soma_contract.changes import Change, ChangeSet, Checkpoint, LinkEnded, LinkStored, MemoryStored
from soma_contract.errors import DrainingError, FieldViolationError
from soma_contract.memory import View
from soma_contract.tenant import Tenant

PAGE = 200
SET_BYTES = 3 * 1024 * 1024
_CHANGE_BYTES = 300
"""What a change costs beside text, payload and vector."""


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How a watch is served; seconds."""

    checkpoint_s: float = 15.0
    poll_s: float = 0.5
    """How often a quiet changelog is looked at; a hint of this process wakes it at once."""
    stall_s: float = 30.0
    """A frame that the caller does not take for so long ends the stream."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What to watch; ``after_revision`` None is from now on, ``reaches`` says which namespaces are told of."""

    after_revision: int | None = None
    links: bool = False
    view: View = View.BASIC
    reaches: Callable[[str], bool] = lambda _: True


@dataclass(slots=True)
class ChangeHint:
    """Wakes watchers when this process has written something."""

    _waiting: set[asyncio.Event] = field(default_factory=set)

    def give(self) -> None:
        """Say that there may be changes."""
        for event in self._waiting:
            event.set()

    @contextmanager
    def taken(self) -> Iterator[asyncio.Event]:
        """An event that hints set."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)


@dataclass(frozen=True, slots=True)
class Watching:
    """Streams changes."""

    feed: ChangeFeed
    clock: Clock
    hint: ChangeHint
    rules: WatchRules = field(default_factory=WatchRules)

    async def watch(
        self, tenant: Tenant, watch: Watch, draining: asyncio.Event
    ) -> AsyncIterator[ChangeSet | Checkpoint]:
        """Yield changes in the order of their commits, for ever; a checkpoint first, and one at least every 15 s.

        Raises RevisionCompactedError, FieldViolationError for a revision that is not reached yet, and DrainingError
        once the server drains: whoever watches goes on at another one.
        """
        with self.hint.taken() as woken:
            start = await self._start(tenant, watch.after_revision)
            place, through = (start, _LAST), start
            told_at = self.clock.monotonic()
            yield Checkpoint(start, self.clock.now())
            while not draining.is_set():
                woken.clear()
                lines = await self.feed.read(tenant, place, PAGE + 1, watch.view)
                page = lines[:PAGE]
                for found in _sets(page, lines[PAGE:], watch):
                    if found.changes:
                        yield found
                if page:
                    place = page[-1].revision, page[-1].ordinal
                    complete = len(lines) <= PAGE or lines[PAGE].revision > page[-1].revision
                    through = page[-1].revision if complete else page[-1].revision - 1
                if self.clock.monotonic() - told_at >= self.rules.checkpoint_s:
                    yield Checkpoint(through, self.clock.now())
                    told_at = self.clock.monotonic()
                if len(lines) <= PAGE:
                    await _either(woken, self.rules.poll_s)
            raise DrainingError

    async def _start(self, tenant: Tenant, after_revision: int | None) -> int:
        current = await self.feed.revision(tenant)
        if after_revision is None:
            return current
        if after_revision > current:
            raise FieldViolationError.at("after_revision", f"lies ahead: the last revision is {current}")
        return after_revision


_LAST = 2**31 - 1
"""Behind every ordinal of a revision."""


def _sets(page: list[Line], following: list[Line], watch: Watch) -> Iterator[ChangeSet]:
    """Group lines by revision, in parts that are small enough to send."""
    for revision, members in groupby(page, key=lambda line: line.revision):
        lines = list(members)
        part: list[Change] = []
        size = 0
        for line in lines:
            if line.change is None or not _wanted(line, line.change, watch):
                continue
            cost = _size(line.change)
            if part and size + cost > SET_BYTES:
                yield ChangeSet(revision, line.committed_at, tuple(part), complete=False)
                part, size = [], 0
            part.append(line.change)
            size += cost
        more = bool(following) and following[0].revision == revision and lines[-1] is page[-1]
        yield ChangeSet(revision, lines[-1].committed_at, tuple(part), complete=not more)


def _wanted(line: Line, change: Change, watch: Watch) -> bool:
    if isinstance(change, LinkStored | LinkEnded) and not watch.links:
        return False
    return any(map(watch.reaches, line.namespaces))


def _size(change: Change) -> int:
    if not isinstance(change, MemoryStored):
        return _CHANGE_BYTES
    memory = change.memory
    vector = len(memory.embedding.packed) if memory.embedding is not None else 0
    # Four bytes at most a character, and texts are mostly plain: what is left of the limit makes up for the rest.
    return _CHANGE_BYTES + 2 * (len(memory.text) + len(memory.payload_json)) + vector


async def _either(woken: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return

"""Following a tenant's changes for as long as one likes: whole revisions, in order, each once.

    watcher = Watcher(soma, after_revision=0)
    async for change_set in watcher:
        ...
        remember_somewhere(watcher.revision)

A connection that breaks is taken up behind the last revision that came whole; ``revision`` is where a later process
goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from soma.memory.v1 import watch_service_pb2 as pb
from soma_client.batch import BatchCalls
from soma_client.calling import may_resume
from soma_contract.errors import SomaError

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0


class Watcher(AsyncIterator[pb.ChangeSet]):
    """An async iterator of change sets, each a whole revision; never ends by itself.

    ``after_revision`` None begins with what comes from now on.  Raises RevisionCompactedError where the changes asked
    for are no longer kept, and the error at hand when nothing was heard for ``patience_s`` (None: never gives up).
    """

    def __init__(
        self,
        soma: BatchCalls,
        after_revision: int | None = None,
        *,
        namespaces: Iterable[str] = (),
        include_links: bool = False,
        ids_only: bool = False,
        patience_s: float | None = None,
    ) -> None:
        self.revision = after_revision
        """Everything up to here was given out, or is not asked for; None until the server has said where now is."""
        self.reconnects = 0
        self._soma = soma
        self._namespaces = tuple(namespaces)
        self._include_links = include_links
        self._ids_only = ids_only
        self._patience_s = patience_s
        self._heard_at = 0.0
        self._sets = self._run()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> pb.ChangeSet:
        return await anext(self._sets)

    async def aclose(self) -> None:
        """Stop following."""
        await self._sets.aclose()

    async def _run(self) -> AsyncGenerator[pb.ChangeSet, None]:
        failed, self._heard_at = 0, time.monotonic()
        while True:
            began = self._heard_at
            try:
                async for found in self._stream():
                    yield found
            except SomaError as error:
                failed = 1 if self._heard_at > began else failed + 1
                silent_s = time.monotonic() - self._heard_at
                if not may_resume(error) or (self._patience_s is not None and silent_s > self._patience_s):
                    raise
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failed - 1))
                await asyncio.sleep(max(wait_s, error.retry_after_s or 0.0))
            else:
                await asyncio.sleep(FIRST_WAIT_S)
            self.reconnects += 1

    async def _stream(self) -> AsyncGenerator[pb.ChangeSet, None]:
        whole = pb.ChangeSet()
        async for frame in self._soma.watch(
            self.revision,
            namespaces=self._namespaces,
            include_links=self._include_links,
            ids_only=self._ids_only,
        ):
            self._heard_at = time.monotonic()
            if frame.HasField("checkpoint"):
                self.revision = frame.checkpoint.revision
                continue
            whole.MergeFrom(frame.changes)
            if frame.changes.complete:
                self.revision = whole.revision
                yield whole
                whole = pb.ChangeSet()

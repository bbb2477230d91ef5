"""Children kept running together: started side by side, ended one by one in the opposite order."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from soma_embedded.child import Child
from soma_embedded.directory import DataDirectory
from soma_embedded.identity import ProcessRecord, stop_leftover


class Supervision:
    """Starts children; leaving it stops them, the last one first."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._children:
            await self._children.pop().stop()

    async def start(self, *children: Child) -> None:
        """Starts children side by side; returns when all are ready, raises the first failure as itself."""
        self._children += children
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child.start())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None


def stop_leftovers(directory: DataDirectory) -> list[str]:
    """Ends what a killed supervisor left running on this directory; returns the names of what was still alive.

    Servers go before the stores they write to. Called while the directory is held, before anything is started.
    """
    found = []
    stores = {"postgres", "redis", "milvus"}
    paths = sorted(directory.place("run").glob("*.json"), key=lambda path: (path.stem in stores, path.stem))
    for path in paths:
        record = ProcessRecord.read(path)
        if record is not None and stop_leftover(record):
            found.append(path.stem)
        path.unlink(missing_ok=True)
    return found

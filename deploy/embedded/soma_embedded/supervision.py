"""Children kept running together: started in groups, ended in the opposite order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from soma_embedded.child import Child
from soma_embedded.directory import DataDirectory
from soma_embedded.identity import ProcessRecord, stop_leftover


class Supervision:
    """Starts groups of children; leaving it stops the last started group first."""

    def __init__(self) -> None:
        self._groups: list[tuple[Child, ...]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._groups:
            await _together(child.stop() for child in self._groups.pop())

    async def start(self, *children: Child) -> None:
        """Starts children side by side; returns when all are ready, raises the first StartError."""
        self._groups.append(children)
        await _together(child.start() for child in children)

    def children(self) -> tuple[Child, ...]:
        """Every child, in the order of starting."""
        return tuple(child for group in self._groups for child in group)


async def _together(steps: Iterable[object]) -> None:
    """Runs coroutines side by side; raises the first failure as itself, not wrapped in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)  # type: ignore[arg-type]
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

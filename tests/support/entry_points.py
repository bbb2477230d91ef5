"""The servers' own programs, started as a container starts them: by their names, told everything by the environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

START_S = 60.0


class Started:
    """A running program; ``code`` is what it ended with once it has been left."""

    def __init__(self, process: asyncio.subprocess.Process, ops: str) -> None:
        self.process = process
        self.ops = ops
        self.code: int | None = None

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the ops port; status 0 while nobody answers."""

        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://{self.ops}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(get)


def program(name: str) -> Path:
    """A console script of this environment."""
    return Path(sys.executable).with_name(name)


@asynccontextmanager
async def started(
    argv: Sequence[str], environment: Mapping[str, str], *, ops: str, log: Path, directory: Path
) -> AsyncIterator[Started]:
    """A program that is ready by its ops port; ended by SIGTERM.  Nothing of our own SOMA_ variables reaches it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SOMA_", "OTEL_"))}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=directory, env={**inherited, **environment}, stdout=output, stderr=output
        )
    running = Started(process, ops)
    try:
        async with asyncio.timeout(START_S):
            while (await running.page("/readyz"))[0] != 200:
                if process.returncode is not None:
                    raise AssertionError(f"{argv[0]} ended with {process.returncode}:\n{log.read_text()}")
                await asyncio.sleep(0.05)
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            running.code = await asyncio.wait_for(process.wait(), 40)
        except TimeoutError:
            process.kill()
            running.code = await process.wait()

"""What the supervisor must know of a program to start it, know that it is ready, and end it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from soma_embedded.ports import LOOPBACK

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One way to run a program; argv is seen by every user of the machine and holds no secret."""

    argv: tuple[str, ...]
    working_directory: Path
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Added to the supervisor's own environment."""
    user: int | None = None
    """The user id to become when the supervisor is root; None stays who it is."""


class Program(Protocol):
    """A program that is started, probed, ended and started again."""

    name: str
    port: int
    stop_signal: int
    """Asks it to end in good order."""
    death_signal: int
    """What the kernel sends it when the supervisor is gone (Linux)."""
    stop_grace_s: float
    first_attempts: int
    """How often the first start is tried: what a killed predecessor of a store held may take a moment to be let go."""

    async def prepare(self) -> Command:
        """Called before every start: makes what it needs on disk and clears what a crash left."""
        ...

    async def probe(self, pid: int) -> None:
        """Returns once the process of this pid, and no other, answers real requests; raises what stood in the way."""
        ...

    async def settle(self) -> None:
        """Called once after the first successful probe of a supervisor's life."""
        ...


class WrongProcessError(Exception):
    """Something answered on the port, but it was not the process that was started."""


async def launch(command: Command, log: IO[bytes], death_signal: int) -> asyncio.subprocess.Process:
    """Starts a command in a session of its own; it dies with this process."""
    order = {
        "argv": command.argv,
        # Applied at the last moment: a library path meant for the program would break the interpreter before it.
        "environment": dict(command.environment),
        "parent": os.getpid(),
        "death_signal": death_signal,
        "user": command.user,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCH),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=command.working_directory,
        env={**os.environ, "SOMA_LAUNCH": json.dumps(order)},
        # A Ctrl-C at the terminal goes to the supervisor alone, which then ends the rest in order.
        start_new_session=True,
    )


async def connects(port: int) -> None:
    """Returns when something accepts a connection on the loopback port; raises OSError."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.close()

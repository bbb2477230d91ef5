"""Runs `soma` as a process of its own, as somebody at a terminal does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


async def run(*command: str, given: str = "", **environment: str) -> Ended:
    """Runs a command in the source tree, with nothing of our environment that it would read."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOMA_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**inherited, "SOMA_HOME": "/nonexistent", **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(given.encode())
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@dataclass(frozen=True, slots=True)
class Console:
    """A terminal with its environment set."""

    environment: dict[str, str]

    def inherited(self) -> dict[str, str]:
        """The environment of a command that a test starts itself."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SOMA_")}
        return {**kept, "SOMA_HOME": "/nonexistent", **self.environment}

    async def soma(self, *arguments: str, given: str = "", **environment: str) -> Ended:
        """One command."""
        command = (sys.executable, "-m", "soma_client.cli", *arguments)
        return await run(*command, given=given, **{**self.environment, **environment})

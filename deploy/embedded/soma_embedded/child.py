"""One program kept running: started, probed, started again when it ends, stopped when told."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import time
from collections.abc import Callable

from soma_embedded.directory import DataDirectory
from soma_embedded.errors import StartError
from soma_embedded.identity import ProcessRecord, started
from soma_embedded.program import Program, connects, launch

_log = logging.getLogger("soma_embedded")

POLL_S = 0.02
READY_WITHIN_S = 60.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
CALM_AFTER_S = 30.0
LOG_KEPT_BYTES = 10 * 1024 * 1024
_FATAL = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT}


class State(enum.Enum):
    """Where a child is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"


class Child:
    """Runs one program for as long as it is wanted.

    `start` begins, `stop` ends; in between the process is started anew whenever it ends, after 0.1 s, then twice
    as long each time up to 5 s. The delay is forgotten after 30 s without an end.
    """

    def __init__(self, program: Program, directory: DataDirectory, *, ready_within_s: float = READY_WITHIN_S) -> None:
        self.program = program
        self.restarts = 0
        self.last_error = ""
        self.state = State.STOPPED
        self._directory = directory
        self._ready_within_s = ready_within_s
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._changing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The process that runs now; None if none does."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def start(self) -> None:
        """Starts the program and returns when it is ready; raises StartError when it will not be."""
        self._unwanted.clear()
        async with self._changing:
            delay_s = FIRST_DELAY_S
            for left in reversed(range(self.program.first_attempts)):
                try:
                    await self._begin(State.STARTING)
                    break
                except StartError:
                    if left == 0 or self.pid is not None or self._unwanted.is_set():
                        await self._end()
                        raise
                await self._pause(delay_s)
                delay_s *= 2
            await self.program.settle()
        # Ends with stop(), which awaits it: the one task of this object.
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self) -> None:
        """Ends the process in good order, by force after its grace; nothing starts it again."""
        self._unwanted.set()
        if self._keeper is not None:
            await self._keeper
            self._keeper = None
        async with self._changing:
            await self._end()

    async def restart(self, between: Callable[[], None] | None = None) -> None:
        """Ends the process in good order and starts it again; `between` runs while it is down."""
        async with self._changing:
            await self._end()
            if between is not None:
                between()
            await self._begin(State.RESTARTING)

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal; after SIGKILL returns when the process is gone. `ready` then waits for its successor."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if number in _FATAL:
            self._ready.clear()
        _signal(process, number)
        if number == signal.SIGKILL:
            await process.wait()

    async def ready(self) -> None:
        """Waits until the program is ready, for as long as that takes."""
        await self._ready.wait()

    async def _keep(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._unwanted.is_set():
            began = time.monotonic()
            code = await self._ended()
            async with self._changing:
                if self._unwanted.is_set() or self.pid is not None:
                    continue
                self.restarts += 1
                self.state = State.RESTARTING
                self._ready.clear()
                _log.warning("%s ended with %s; starting it again", self.name, code)
                if time.monotonic() - began > CALM_AFTER_S:
                    delay_s = FIRST_DELAY_S
                await self._pause(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
                if not self._unwanted.is_set():
                    try:
                        await self._begin(State.RESTARTING)
                    except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
                        self.last_error = str(error)
                        _log.error("%s", error)
                        await self._end()
                    else:
                        _log.info("%s is ready again", self.name)

    async def _ended(self) -> int | None:
        """Waits until the process ends or is unwanted; returns the exit code of an ended one."""
        process = self._process
        if process is None:
            return None
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(process.wait()), group.create_task(self._unwanted.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return process.returncode

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._unwanted.wait(), delay_s)

    async def _begin(self, state: State) -> None:
        """Starts the process and returns when it answers; raises StartError."""
        self.state = state
        self._ready.clear()
        try:
            command = await self.program.prepare()
        except OSError as error:
            raise StartError(self.name, f"cannot be prepared: {error}", self._directory.log(self.name)) from error
        log = self._directory.log(self.name)
        if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
            log.rename(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            self._process = await launch(command, output, self.program.death_signal)
        since = started(self._process.pid)
        if since is not None:
            ProcessRecord(self._process.pid, since, int(self.program.stop_signal)).write(
                self._directory.record(self.name)
            )
        await self._until_ready(self._process)
        self.state = State.READY
        self._ready.set()

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + self._ready_within_s
        obstacle = "nothing listens on its port"
        while time.monotonic() < deadline:
            if process.returncode is not None:
                raise StartError(self.name, f"ended with {process.returncode}", self._directory.log(self.name))
            if self._unwanted.is_set():
                raise StartError(self.name, "was stopped before it was ready", self._directory.log(self.name))
            try:
                await connects(self.program.port)
                async with asyncio.timeout(5):
                    await self.program.probe(process.pid)
                return
            except Exception as error:  # noqa: BLE001 - every failure means the same: not yet
                obstacle = str(error) or type(error).__name__
            await asyncio.sleep(POLL_S)
        what = f"was not ready within {self._ready_within_s:g} s ({obstacle})"
        raise StartError(self.name, what, self._directory.log(self.name))

    async def _end(self) -> None:
        self._ready.clear()
        process = self._process
        if process is not None and process.returncode is None:
            # A frozen process (SIGSTOP) would never see the request to end.
            _signal(process, signal.SIGCONT)
            _signal(process, self.program.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self.program.stop_grace_s)
            except TimeoutError:
                _log.warning("%s did not end within %g s; killing it", self.name, self.program.stop_grace_s)
                _signal(process, signal.SIGKILL)
                await process.wait()
        self._directory.record(self.name).unlink(missing_ok=True)
        self.state = State.STOPPED


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    """Sends a signal past subprocess, whose send_signal would reap an ended child before asyncio can."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)

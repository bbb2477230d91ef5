"""Several memory servers on one port: the kernel spreads connections over them, and a dead one is replaced.

Everything a memory server owns stands in Postgres, so workers need not know of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping

WORKER = "SOMA_WORKER"
"""Set in a worker's environment: its number, from 0."""
_PR_SET_PDEATHSIG = 1
_AGAIN_S = 0.5
_REFUSED = 2
"""What a server exits with that its settings keep from starting; another try would end the same."""
_log = logging.getLogger("soma.workers")


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """The address with its port decided, and kept for workers of this process.

    Raises OSError when another process listens there: with a shared port it would take half of the calls.
    """
    host, _, wanted = address.rpartition(":")
    if not host or not wanted.isdigit():
        raise ValueError(f"SOMA_MEMORY_ADDRESS: {address!r} is not of the form host:port")
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            alone.bind((name, int(wanted)))
        except OSError as error:
            raise OSError(f"cannot listen on {address}: it is in use or not an address of this machine") from error
        port = alone.getsockname()[1]
    with socket.socket(family) as shared:
        # Bound and never listening: it gets no connections, and only sockets that share as well may follow.
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((name, port))
        yield f"{host}:{port}"


def settings_of(number: int, environment: Mapping[str, str], address: str) -> dict[str, str]:
    """The environment of a worker: the shared address, and ops ports that count up from the first."""
    found = {**environment, WORKER: str(number), "SOMA_MEMORY_ADDRESS": address}
    for name in ("SOMA_MEMORY_OPS_ADDRESS", "SOMA_MEMORY_CHANNELZ_ADDRESS"):
        host, _, port = environment.get(name, "").rpartition(":")
        if port.isdigit() and int(port):
            found[name] = f"{host}:{int(port) + number}"
    return found


async def supervise(count: int, address: str) -> int:
    """Run ``count`` workers until SIGTERM or SIGINT, which all of them get; returns the exit code."""
    stopping = asyncio.Event()
    running: dict[int, asyncio.subprocess.Process] = {}
    codes: list[int] = []

    def on_signal(number: int) -> None:
        stopping.set()
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, on_signal, each)

    async def keep(number: int) -> None:
        while not stopping.is_set():
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "memory_server",
                env=settings_of(number, os.environ, address),
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
            running[number] = process
            code = await process.wait()
            del running[number]
            if stopping.is_set():
                codes.append(code)
            elif code == _REFUSED:
                codes.append(code)
                on_signal(signal.SIGTERM)
            else:
                _log.warning("a worker ended; starting another", extra={"fields": {"worker": number, "code": code}})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _AGAIN_S)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(keep(number))
    return max((abs(code) for code in codes), default=0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

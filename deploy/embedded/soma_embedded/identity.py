"""Which process a pid meant: pids are reused, start times are not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import psutil

from soma_embedded.directory import write_private

STOP_GRACE_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process as it was when it was started."""

    pid: int
    started: str
    """The boot it belongs to and its start time within it; equal for two pids only if they are one process."""
    stop_signal: int
    """What asks this process to end; it is killed if it does not."""

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return started(self.pid) == self.started

    def write(self, path: Path) -> None:
        """Replaces the record on disk in one step."""
        write_private(path, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> ProcessRecord | None:
        """The record on disk; None if there is none or it is torn."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def started(pid: int) -> str | None:
    """When a process started, in a form that survives changes of the clock; None if it is gone or a zombie."""
    try:
        # The command's name is in parentheses and may hold anything, also parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in {"Z", "X"} else f"{boot}:{fields[19]}"
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def listens(pid: int, port: int) -> bool:
    """Whether the process itself (not an older one on the same port) listens on the TCP port."""
    try:
        process = psutil.Process(pid)
        connections = process.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in connections)


def stop_leftover(record: ProcessRecord, *, within_s: float = STOP_GRACE_S) -> bool:
    """Ends a process that an earlier supervisor left behind; False if it had already ended.

    Blocks for at most `within_s` seconds plus the time a kill takes; nothing else runs yet when this is called.
    """
    if not record.alive():
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, record.stop_signal)
    deadline = time.monotonic() + within_s
    while record.alive():
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)
        time.sleep(0.02)
    return True

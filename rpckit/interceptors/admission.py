"""How many calls run at once, and none once the server drains. What does not fit is refused at once, never queued."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass

from rpckit.layer import Call
from soma_contract.errors import DrainingError, OverloadedError


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How much may run at once in one process."""

    calls: int = 512
    streams: int = 1024
    calls_per_tenant: int = 256
    streams_per_tenant: int = 64
    open_calls: int = 128
    """Calls without credentials: health, reflection."""


class Drain:
    """The one switch that says: this server takes no new calls and its long streams should end.

    A long stream watches ``started``, sends its drain frame and ends at its next boundary. What still runs when
    ``cut`` is called ends with DRAINING.
    """

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._running: set[Call] = set()

    @property
    def running(self) -> int:
        """How many calls run now, calls without credentials not counted."""
        return sum(1 for call in self._running if not call.method.is_open)

    @property
    def streams(self) -> int:
        """How many of them are streams."""
        return sum(1 for call in self._running if call.method.is_stream and not call.method.is_open)

    def begin(self) -> None:
        """Refuse new calls with DRAINING and tell the streams; health answers on."""
        self.started.set()

    def cut(self, *, only_open: bool = False) -> int:
        """End the running calls now, or only those without credentials (a health Watch never ends by itself)."""
        ended, now = 0, asyncio.get_running_loop().time()
        for call in self._running:
            if call.scope is None or (only_open and not call.method.is_open):
                continue
            with contextlib.suppress(RuntimeError):  # its deadline is ending it at this very moment
                call.scope.reschedule(now)
                call.cut = DrainingError()
                ended += 1
        return ended

    def joined(self, call: Call) -> None:
        """Count a call in; its ``scope`` is set."""
        self._running.add(call)

    def left(self, call: Call) -> None:
        """Count a call out."""
        self._running.discard(call)


class ServerAdmission:
    """Bounds what runs in the process, before anything is spent on finding out who calls."""

    name = "admission"

    def __init__(self, limits: AdmissionLimits, drain: Drain) -> None:
        self._limits = limits
        self._drain = drain
        self._running: Counter[str] = Counter()

    async def enter(self, call: Call) -> None:
        """Raises DrainingError or OverloadedError."""
        scope, limit = self._share(call)
        if self._drain.started.is_set() and not call.method.is_open:
            raise DrainingError
        if self._running[scope] >= limit:
            raise OverloadedError(retry_after_s=_delay(), scope="server")
        self._running[scope] += 1

    def leave(self, call: Call) -> None:
        self._running[self._share(call)[0]] -= 1

    def _share(self, call: Call) -> tuple[str, int]:
        if call.method.is_open:
            return "open", self._limits.open_calls
        if call.method.is_stream:
            return "streams", self._limits.streams
        return "calls", self._limits.calls


class TenantAdmission:
    """Bounds what one tenant runs, so that a neighbour always finds room."""

    name = "tenant admission"

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._running: dict[tuple[str, bool], int] = {}

    async def enter(self, call: Call) -> None:
        """Raises OverloadedError."""
        tenant = call.context.tenant
        if tenant is None:
            return
        key = (tenant.name, call.method.is_stream)
        limit = self._limits.streams_per_tenant if key[1] else self._limits.calls_per_tenant
        running = self._running.get(key, 0)
        if running >= limit:
            raise OverloadedError(retry_after_s=_delay(), scope="tenant")
        self._running[key] = running + 1

    def leave(self, call: Call) -> None:
        tenant = call.context.tenant
        if tenant is None:
            return
        key = (tenant.name, call.method.is_stream)
        # Forgotten at zero: there may be more tenants over a process' life than fit in memory.
        if self._running[key] == 1:
            del self._running[key]
        else:
            self._running[key] -= 1


def _delay() -> float:
    return round(random.uniform(0.1, 0.4), 3)  # spread, so that the refused do not return together

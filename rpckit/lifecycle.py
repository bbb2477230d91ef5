"""The life of a server process: built, started, stopped by a signal in an order that loses nothing.

On SIGTERM or SIGINT: health says NOT_SERVING → balancers get time to notice → new calls are refused and long streams
told to end → running calls finish, or are cut with DRAINING when the grace is over → buffers are flushed → resources
close in the reverse order of their opening. A second signal skips what is left but the closing; a third kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import grpc

from rpckit.health import Health
from rpckit.heap import settle_heap
from rpckit.interceptors.admission import Drain

_log = logging.getLogger("soma.lifecycle")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CUT_S = 0.5
"""How long before the end of the grace running calls are cut, so that the status they end with still arrives."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """How long each step of stopping may take."""

    notice_s: float = 0.0
    """Between NOT_SERVING and refusing calls; about 5 behind a balancer."""
    grace_s: float = 25.0
    """For running calls and streams to end."""
    flush_s: float = 10.0
    """For each flush."""


@dataclass(frozen=True, slots=True)
class Served:
    """A built server, ready to start; ports are bound, resources are on the exit stack."""

    server: grpc.aio.Server
    drain: Drain
    health: Health | None = None
    flushes: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """What must be written out before resources close: the outbox, the indexer's batch, telemetry."""
    on_started: Callable[[], None] | None = None
    """Called when the server takes calls; a place to print addresses."""


class StopRequest:
    """The wish to stop, from a signal or from code: the first asks, the second insists."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.grace_s: float | None = None
        """What was asked for instead of the server's own grace."""
        self._task: asyncio.Task[object] | None = None
        self._serving = False

    def request(self) -> None:
        """Ask to stop; asked again, or before the server has started, everything running is cancelled."""
        insisted = self.asked.is_set()
        self.asked.set()
        if (insisted or not self._serving) and self._task is not None:
            self._task.cancel()

    def ask(self, grace_s: float | None = None) -> None:
        """Ask to stop, with another grace if one is given; asked before, it changes nothing."""
        if not self.asked.is_set():
            self.grace_s = grace_s
            self.request()

    @contextlib.contextmanager
    def bound_to_task(self) -> Iterator[None]:
        """Make the current task the one that is cancelled."""
        self._task = asyncio.current_task()
        try:
            yield
        finally:
            self._task = None

    def serving(self) -> None:
        """From now on the first request is answered by an orderly stop."""
        self._serving = True


async def serve(
    build: Callable[[AsyncExitStack], Awaitable[Served]],
    shutdown: Shutdown | None = None,
    *,
    stop: StopRequest | None = None,
    signals: bool | None = None,
) -> None:
    """Build a server, serve until asked to stop, and stop it in order.

    ``build`` enters every resource on the stack it is given. SIGTERM and SIGINT ask to stop, and so does the caller
    through ``stop``; with a ``stop`` signals are left alone unless ``signals`` says otherwise.
    """
    request = stop or StopRequest()
    heard = stop is None if signals is None else signals
    with request.bound_to_task(), _signals(request) if heard else contextlib.nullcontext():
        try:
            async with AsyncExitStack() as stack:
                served = await build(stack)
                if heard:
                    # A process of its own, and not a server among other things of a program.
                    settle_heap()
                await served.server.start()
                request.serving()
                if served.on_started is not None:
                    served.on_started()
                await request.asked.wait()
                wanted = shutdown or Shutdown()
                if request.grace_s is not None:
                    wanted = replace(wanted, grace_s=request.grace_s)
                await _stop(served, wanted)
        except asyncio.CancelledError:
            if not request.asked.is_set():
                raise  # somebody else's cancellation
            _log.warning("stopped at once, as asked")


async def _stop(served: Served, shutdown: Shutdown) -> None:
    server, drain = served.server, served.drain
    _log.info("stopping: not serving")
    try:
        if served.health is not None:
            await served.health.stop_serving()
        await asyncio.sleep(shutdown.notice_s)
        _log.info("stopping: draining", extra={"fields": {"running": drain.running}})
        drain.begin()
        drain.cut(only_open=True)
        await _end_calls(server, drain, shutdown.grace_s)
    finally:
        await server.stop(None)
    for flush in served.flushes:
        try:
            async with asyncio.timeout(shutdown.flush_s):
                await flush()
        except Exception:  # noqa: BLE001 - one failed flush must not keep the others from being tried
            _log.exception("a flush failed; going on")
    _log.info("stopping: closing")


async def _end_calls(server: grpc.aio.Server, drain: Drain, grace_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(server.stop(grace_s))
        done, _ = await asyncio.wait({stopping}, timeout=max(0.0, grace_s - _CUT_S))
        if not done:
            _log.warning("the grace is over", extra={"fields": {"cut": drain.cut()}})


@contextlib.contextmanager
def _signals(request: StopRequest) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    received = 0

    def on_signal() -> None:
        nonlocal received
        received += 1
        if received > 1:
            for each in _SIGNALS:
                loop.remove_signal_handler(each)  # the third kills
        request.request()

    for each in _SIGNALS:
        loop.add_signal_handler(each, on_signal)
    try:
        yield
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

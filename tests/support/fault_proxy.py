"""A TCP proxy that misbehaves on demand: it stands between a client and a store and does what networks do."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 64 * 1024
_QUEUED = 64


class Fault(StrEnum):
    """What the proxy does with connections."""

    PASS = "pass"
    """Forward everything."""
    CUT = "cut"
    """Break all connections, and every new one as soon as it is accepted."""
    DELAY = "delay"
    """Forward everything, each way ``delay_s`` later."""
    DROP_REPLIES = "drop-replies"
    """Deliver requests, swallow what the store answers: done, but nobody is told."""
    BLACK_HOLE = "black-hole"
    """Take what is sent and forward nothing, either way; on healing it arrives late."""


@dataclass(slots=True)
class ProxyCounts:
    """What went through since the start."""

    connections: int = 0
    """Connections accepted."""
    cut: int = 0
    """Connections broken by the proxy."""
    request_bytes: int = 0
    """Bytes delivered to the store."""
    reply_bytes: int = 0
    """Bytes delivered to clients."""
    dropped_bytes: int = 0
    """Bytes of answers swallowed."""


class FaultProxy:
    """Listens on a port of its own and forwards to ``host:port``; an async context manager.

    The fault can be switched at any time and holds for open connections too.
    """

    def __init__(self, host: str, port: int, *, delay_s: float = 0.01) -> None:
        self.counts = ProxyCounts()
        self.delay_s = delay_s
        self.host = "127.0.0.1"
        self.port = 0
        self._upstream = host, port
        self._fault = Fault.PASS
        self._switched = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    @classmethod
    def before(cls, url: str, *, delay_s: float = 0.01) -> Self:
        """A proxy before the store of a URL; see ``url`` for the way through it."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.port:
            raise ValueError(f"no host and port in {url!r}")
        return cls(parts.hostname, parts.port, delay_s=delay_s)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._closing = True
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def fault(self) -> Fault:
        """What the proxy does now."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._switched.set()
        self._switched = asyncio.Event()
        if fault is Fault.CUT:
            self.cut()

    @property
    def open_connections(self) -> int:
        """Connections of clients that are open now."""
        return len(self._tasks)

    async def idle(self) -> None:
        """Return as soon as no client is connected."""
        await self._idle.wait()

    def lead_to(self, url: str) -> str:
        """Forward to the store of a URL from now on, which may not be known earlier; the URL through the proxy."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.port:
            raise ValueError(f"no host and port in {url!r}")
        self._upstream = parts.hostname, parts.port
        return self.url(url)

    def url(self, url: str) -> str:
        """The same URL, through the proxy."""
        parts = urlsplit(url)
        account = parts.netloc.rpartition("@")[0]
        netloc = f"{account}@{self.host}:{self.port}" if account else f"{self.host}:{self.port}"
        return urlunsplit(parts._replace(netloc=netloc))

    def cut(self) -> None:
        """Break all open connections now, with a reset; new ones are served as the fault says."""
        for writer in list(self._open):
            writer.transport.abort()
        self.counts.cut += len(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._idle.clear()
        self.counts.connections += 1
        try:
            with contextlib.suppress(OSError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            # The server's own callback would log this as an error.
            if not self._closing:
                raise
        finally:
            writer.transport.abort()
            self._open.discard(writer)
            self._tasks.discard(task)
            if not self._tasks:
                self._idle.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        await self._wait_while(Fault.BLACK_HOLE)
        if self._fault is Fault.CUT:
            self.counts.cut += 1
            return
        store_reader, store_writer = await asyncio.open_connection(*self._upstream)
        self._open.add(store_writer)
        try:
            # The end of one direction is the end of both: no store here uses half-closed connections.
            pumps = {
                asyncio.ensure_future(self._pump(reader, store_writer, to_store=True)),
                asyncio.ensure_future(self._pump(store_reader, writer, to_store=False)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            store_writer.transport.abort()
            self._open.discard(store_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_store: bool) -> None:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)

        async def receive() -> None:
            # Apart from sending, so that a delay is a delay and not a limit of the throughput.
            with contextlib.suppress(OSError):
                while chunk := await reader.read(_CHUNK):
                    await arrived.put((loop.time(), chunk))
            await arrived.put((loop.time(), b""))

        receiving = asyncio.ensure_future(receive())
        try:
            while (item := await arrived.get())[1]:
                at, chunk = item
                if self._fault is Fault.DELAY:
                    await asyncio.sleep(max(0.0, at + self.delay_s - loop.time()))
                await self._wait_while(Fault.BLACK_HOLE)
                if not to_store and self._fault is Fault.DROP_REPLIES:
                    self.counts.dropped_bytes += len(chunk)
                    continue
                writer.write(chunk)
                await writer.drain()
                if to_store:
                    self.counts.request_bytes += len(chunk)
                else:
                    self.counts.reply_bytes += len(chunk)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _wait_while(self, fault: Fault) -> None:
        while self._fault is fault:
            await self._switched.wait()

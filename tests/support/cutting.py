"""A network that breaks once: a TCP proxy that resets the first connection which has sent so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_CHUNK = 4096


class CuttingProxy:
    """Listens on a port of its own before ``address``; an async context manager.

    Once a connection has brought ``after_bytes``, it is reset in both directions with what is under way lost. That
    happens once; whoever connects afterwards is served to the end.
    """

    def __init__(self, address: str, *, after_bytes: int) -> None:
        self.address = ""
        self.cuts = 0
        self.connections = 0
        self._upstream = address.rpartition(":")[::2]
        self._after_bytes = after_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, port = self._upstream
        try:
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        pumps = {
            asyncio.ensure_future(self._pump(reader, server_writer, cuts=True)),
            asyncio.ensure_future(self._pump(server_reader, writer)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()
            server_writer.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cuts: bool = False) -> None:
        brought = 0
        with contextlib.suppress(OSError):
            while part := await reader.read(_CHUNK):
                brought += len(part)
                if cuts and not self.cuts and brought >= self._after_bytes:
                    self.cuts += 1
                    return
                writer.write(part)
                await writer.drain()

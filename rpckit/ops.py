"""The operator's HTTP port: ``/livez``, ``/readyz`` and ``/metrics``. Small; bind it where only operators are.

Live means that this loop still turns; ready means that the services have what they need. One request a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

from rpckit.telemetry.metrics import CONTENT_TYPE

_TEXT = "text/plain; charset=utf-8"
_HEAD_BYTES = 8 * 1024
_READ_S = 5.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class OpsPort:
    """Serves the operator's pages while entered."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        is_ready: Callable[[], bool],
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        """``metrics`` returns the exposition text; without it ``/metrics`` is not found."""
        self._host = host
        self._port = port
        self._is_ready = is_ready
        self._metrics = metrics
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port listened on, which matters for port 0; raises RuntimeError unless entered."""
        if self._server is None:
            raise RuntimeError("the ops port is not open")
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, self._host, self._port, limit=_HEAD_BYTES)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # not an HTTP client, or one that has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _response(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return _written(400, b"bad request\n")
        method, target, _ = words
        if method not in {"GET", "HEAD"}:
            return _written(405, b"GET only\n")
        response = self._page(target.partition("?")[0])
        return response if method == "GET" else response[: response.index(b"\r\n\r\n") + 4]

    def _page(self, path: str) -> bytes:
        if path == "/livez":
            return _written(200, b"alive\n")
        if path == "/readyz":
            return _written(200, b"ready\n") if self._is_ready() else _written(503, b"not ready\n")
        if path == "/metrics" and self._metrics is not None:
            return _written(200, self._metrics(), CONTENT_TYPE)
        return _written(404, b"there are /livez, /readyz and /metrics\n")


def _written(status: int, body: bytes, content_type: str = _TEXT) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body

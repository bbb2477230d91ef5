"""A re-ranking endpoint on loopback that scores as the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, object]]


@asynccontextmanager
async def endpoint(answer: Answer, seen: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Serve ``answer(request body) -> (status, body)``; ``seen`` collects heads and bodies."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line for line in head.split("\r\n") if line.lower().startswith("content-length")]
        body = json.loads(await reader.readexactly(int(lines[0].split(":")[1])))
        seen.append({"head": head.lower(), "body": body})
        status, told = answer(body)
        content = json.dumps(told).encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n".encode())
        writer.write(content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/rerank"

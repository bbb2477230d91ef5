"""A real HTTP server on a loopback port that answers like an embedding endpoint, as a test scripts it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, dict[str, str], object]
Script = Callable[["Endpoint", dict[str, Any]], Awaitable[Answer]]


def vector_of(text: str, dimension: int = 8) -> list[float]:
    """A vector for a text, not of unit norm, the same every time."""
    digest = hashlib.sha256(text.encode()).digest()
    return [float(byte) - 100.0 for byte in digest[:dimension]]


async def embedding_answer(_: Endpoint, body: dict[str, Any]) -> Answer:
    """Answer as OpenAI does, entries out of order on purpose."""
    entries = [
        {"object": "embedding", "index": index, "embedding": vector_of(text, body.get("dimensions", 8))}
        for index, text in enumerate(body["input"])
    ]
    return 200, {}, {"object": "list", "data": entries[::-1], "model": body["model"]}


@dataclass
class Endpoint:
    """The server: what it was asked, and how it answers next."""

    script: Script = embedding_answer
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    base_url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                assert (method, path) == ("POST", "/v1/embeddings")
                self.asked.append(body)
                self.headers.append(headers)
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    status, extra, answer = await self.script(self, body)
                finally:
                    self.running -= 1
                payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                head = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
                writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(payload)}\r\n{head}\r\n".encode() + payload)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def endpoint(script: Script = embedding_answer) -> AsyncIterator[Endpoint]:
    """Serve `script` on a free loopback port."""
    served = Endpoint(script)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()

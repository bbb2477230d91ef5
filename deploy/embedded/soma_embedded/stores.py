"""Postgres, Redis and Milvus, started from wheels on one data directory."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from soma_embedded.child import Child, State
from soma_embedded.directory import DataDirectory
from soma_embedded.milvus import Milvus
from soma_embedded.ports import free_port
from soma_embedded.postgres import OWNER, Postgres
from soma_embedded.redis import Redis
from soma_embedded.supervision import Supervision, stop_leftovers

_log = logging.getLogger("soma_embedded")

StoreName = Literal["postgres", "redis", "milvus"]


class EmbeddedStores:
    """The three stores as real processes on random loopback ports, kept running until left.

    An async context manager. Entering raises DirectoryInUseError, DirectoryUnusableError, EngineMissingError or
    StartError; the ports stay the same while it is entered, whatever is killed or restarted.
    """

    def __init__(self, directory: Path | DataDirectory) -> None:
        self.directory = directory if isinstance(directory, DataDirectory) else DataDirectory(directory)
        self._exits = contextlib.AsyncExitStack()
        self.children: dict[str, Child] = {}

    async def __aenter__(self) -> Self:
        async with self._exits as exits:
            exits.enter_context(self.directory.hold())
            for name in stop_leftovers(self.directory):
                _log.warning("stopped %s, which an earlier run had left behind", name)
            self._postgres = Postgres(self.directory, free_port())
            self._redis = Redis(self.directory, free_port())
            self._milvus = Milvus(self.directory, free_port())
            self.children = {
                "postgres": Child(self._postgres, self.directory),
                "redis": Child(self._redis, self.directory),
                "milvus": Child(self._milvus, self.directory),
            }
            supervision = await exits.enter_async_context(Supervision())
            await supervision.start(*self.children.values())
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    @property
    def postgres_url(self) -> str:
        """Postgres as the application role, which row-level security binds."""
        return self._postgres.url()

    @property
    def postgres_admin_url(self) -> str:
        """Postgres as the owner and superuser, for migrations."""
        return self._postgres.url(OWNER)

    @property
    def milvus_uri(self) -> str:
        """Milvus over TCP."""
        return self._milvus.uri

    @property
    def redis_url(self) -> str:
        """Redis with its password, database 0."""
        return self._redis.url

    @property
    def pids(self) -> Mapping[str, int | None]:
        """The process of each store; None while it is down."""
        return {name: child.pid for name, child in self.children.items()}

    @property
    def states(self) -> Mapping[str, State]:
        """Where each store is in its life."""
        return {name: child.state for name, child in self.children.items()}

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each store ended by itself and was started again."""
        return {name: child.restarts for name, child in self.children.items()}

    def environment(self) -> dict[str, str]:
        """The settings with which a Soma server finds these stores."""
        return {
            "SOMA_POSTGRES_URL": self.postgres_url,
            "SOMA_POSTGRES_ADMIN_URL": self.postgres_admin_url,
            "SOMA_MILVUS_URI": self.milvus_uri,
            "SOMA_REDIS_URL": self.redis_url,
        }

    async def kill(self, name: StoreName, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a store's process; a store that ends is started again by itself."""
        await self.children[name].kill(number)

    async def ready(self, name: StoreName) -> None:
        """Waits until a store answers, for instance after a kill."""
        await self.children[name].ready()

    async def restart(self, name: StoreName) -> None:
        """Stops a store in good order and starts it again."""
        await self.children[name].restart()

    async def wipe(self, name: Literal["redis", "milvus"]) -> None:
        """Deletes everything a derived store holds and starts it again, empty."""
        store = self._redis if name == "redis" else self._milvus
        await self.children[name].restart(between=store.wipe)

    async def create_database(self, name: str, *, template: str = "template1") -> tuple[str, str]:
        """Makes a database if there is none of this name; returns its (application url, owner url)."""
        await self._postgres.create_database(name, template=template)
        return self._postgres.url(database=name), self._postgres.url(OWNER, name)

    async def drop_database(self, name: str) -> None:
        """Drops a database with every connection to it."""
        await self._postgres.drop_database(name)

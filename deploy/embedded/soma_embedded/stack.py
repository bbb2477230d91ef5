"""The whole of Soma on one machine: the stores, the memory server and the brain server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import grpc.aio

from soma_embedded.child import POLL_S, Child, State
from soma_embedded.directory import DataDirectory
from soma_embedded.errors import AddressInUseError, EmbeddedError, StartError
from soma_embedded.keys import DEVELOPMENT_TENANT, Keys
from soma_embedded.ports import LOOPBACK, free_port, is_free
from soma_embedded.servers import SomaServer, serves_key
from soma_embedded.stores import EmbeddedStores, StoreName
from soma_embedded.supervision import Supervision

CONNECTED_WITHIN_S = 30.0

ServerName = Literal["memory", "brain"]
ProcessName = StoreName | ServerName


@dataclasses.dataclass(frozen=True, slots=True)
class StackSettings:
    """What can be chosen about a stack."""

    memory_address: str = f"{LOOPBACK}:9595"
    """host:port where the memory server listens; port 0 takes any free one."""
    brain_address: str = f"{LOOPBACK}:9696"
    """host:port where the brain server listens; port 0 takes any free one."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Further settings of the servers, SOMA_…, over those of the caller's environment."""
    server_grace_s: float = 30.0
    """How long a server may drain before it is killed."""


class EmbeddedStack:
    """The stores and both servers as real processes, kept running until left.

    An async context manager; entering returns when both servers say through their health that they serve, and
    raises what EmbeddedStores raises, or AddressInUseError. Leaving stops brain, memory server, stores, in that order.
    Making one raises EmbeddedError for a malformed address.
    """

    def __init__(self, directory: Path, settings: StackSettings | None = None) -> None:
        self.directory = DataDirectory(directory)
        self.settings = settings or StackSettings()
        self.memory_address = self.settings.memory_address
        self.brain_address = self.settings.brain_address
        for server, address in (("memory", self.memory_address), ("brain", self.brain_address)):
            _parsed(server, address)
        self.stores = EmbeddedStores(self.directory)
        self.tenant = DEVELOPMENT_TENANT
        self.children: dict[str, Child] = {}
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with self._exits as exits:
            await exits.enter_async_context(self.stores)
            self._keys = Keys(self.directory)
            self.memory_address, memory_port = _listening("memory", self.settings.memory_address)
            self.brain_address, brain_port = _listening("brain", self.settings.brain_address)
            environment = self._environment(memory_port)
            servers = {
                "memory": self._server("memory", "memory_server", memory_port, environment),
                "brain": self._server("brain", "brain_server", brain_port, environment),
            }
            self.children = {**self.stores.children, **servers}
            supervision = await exits.enter_async_context(Supervision())
            await supervision.start(*servers.values())
            await self.connected()
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
    def development_key(self) -> str:
        """The key of tenant `dev`, the same for the life of the data directory."""
        return self._keys.development

    @property
    def development_key_file(self) -> Path:
        """Where the development key is kept."""
        return self._keys.development_file

    @property
    def pids(self) -> Mapping[str, int | None]:
        """Every process by its name; None while it is down."""
        return {name: child.pid for name, child in self.children.items()}

    @property
    def states(self) -> Mapping[str, State]:
        """Where each process is in its life."""
        return {name: child.state for name, child in self.children.items()}

    async def kill(self, name: ProcessName, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a process; one that ends is started again by itself."""
        await self.children[name].kill(number)

    async def ready(self, name: ProcessName) -> None:
        """Waits until a process answers, for instance after a kill."""
        await self.children[name].ready()

    async def connected(self) -> None:
        """Returns when a call passes through both servers: each may be ready before it has found the other.

        Raises StartError after 30 s.
        """
        try:
            async with asyncio.timeout(CONNECTED_WITHIN_S):
                while not await serves_key(_parsed("brain", self.brain_address)[1], self.development_key):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(POLL_S)
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            what = f"does not answer a call with the development key ({error!r})"
            raise StartError("brain", what, self.directory.log("brain")) from error

    async def restart(self, name: ProcessName) -> None:
        """Stops a process in good order and starts it again."""
        await self.children[name].restart()

    def _server(self, name: ServerName, module: str, port: int, environment: Mapping[str, str]) -> Child:
        grace_s = self.settings.server_grace_s
        return Child(SomaServer(name, module, self.directory, port, environment, stop_grace_s=grace_s), self.directory)

    def _environment(self, memory_port: int) -> dict[str, str]:
        return {
            # Left over in the caller's environment it would contradict SOMA_MILVUS_URI.
            "SOMA_MILVUS_HOST": "",
            **self.stores.environment(),
            "SOMA_MEMORY_ADDRESS": self.memory_address,
            "SOMA_BRAIN_ADDRESS": self.brain_address,
            "SOMA_BRAIN_MEMORY_TARGET": f"{LOOPBACK}:{memory_port}",
            "SOMA_DATA_DIR": str(self.directory.place("brain")),
            "SOMA_SERVICE_CREDENTIAL_FILE": str(self._keys.brain_file),
            "SOMA_BOOTSTRAP_KEY_FILE": str(self._keys.bootstrap_file),
            **self.settings.environment,
        }


def _parsed(server: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise EmbeddedError(f"--{server}-address {address!r} is not of the form host:port")
    return host, int(port)


def _listening(server: str, address: str) -> tuple[str, int]:
    """An address with its port decided, and that port; raises AddressInUseError."""
    host, wanted = _parsed(server, address)
    port = wanted or free_port()
    if not is_free(port):
        raise AddressInUseError(server, address)
    return f"{host}:{port}", port

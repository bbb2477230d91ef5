"""The asynchronous client: one object for everything an agent says to Soma."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Self

import grpc

from rpckit.channel import ChannelTls
from soma_client.administering import TenantCalls
from soma_client.batch import BatchCalls
from soma_client.calling import Calls, Identity, TraceHeaders
from soma_client.channel import open_soma_channel
from soma_client.contexts import ContextCalls
from soma_client.graph import GraphCalls
from soma_client.operating import OperatorCalls
from soma_client.reading import ReadingCalls
from soma_client.working import WorkingCalls
from soma_client.writing import WritingCalls
from soma_contract.errors import UnavailableError
from soma_contract.memory import DEFAULT_NAMESPACE

DEFAULT_TARGET = "127.0.0.1:9696"


class SomaClient(WritingCalls, ReadingCalls, GraphCalls, BatchCalls):
    """A client of a brain or a memory server, which speak the same contract.

    async with SomaClient.connect("127.0.0.1:9696", key=key) as soma:
        await soma.remember("Ada prefers tea", key="user.drink")
        async for hit in soma.recall("what does Ada drink?"):
            print(hit.score, hit.memory.text)
    """

    def __init__(self, calls: Calls, *, owns_channel: bool = False) -> None:
        super().__init__(calls)
        self._owns_channel = owns_channel

    @classmethod
    def connect(
        cls,
        target: str = DEFAULT_TARGET,
        *,
        key: str,
        tenant: str = "",
        persona: str = "",
        session: str = "",
        namespace: str = DEFAULT_NAMESPACE,
        tls: ChannelTls | None = None,
        trace: TraceHeaders | None = None,
        own_connection: bool = False,
    ) -> Self:
        """A client of the server at a target, inside a running event loop; the connection is made by the first call.

        ``trace`` gives the W3C headers of the current span for each call. Close the client, or use ``async with``.
        """
        identity = Identity(key, tenant, persona, session, namespace)
        identity.pairs()  # before a channel is open that nobody would close
        channel = open_soma_channel(target, tls=tls, own_connection=own_connection)
        return cls(Calls(channel, target, identity, trace), owns_channel=True)

    def bound(
        self,
        *,
        key: str | None = None,
        tenant: str | None = None,
        persona: str | None = None,
        session: str | None = None,
        namespace: str | None = None,
    ) -> Self:
        """A client for another tenant, persona, session or namespace on this connection; closing it does nothing."""
        given = {"key": key, "tenant": tenant, "persona": persona, "session": session, "namespace": namespace}
        changes = {name: value for name, value in given.items() if value is not None}
        return type(self)(self._calls.on_behalf_of(replace(self.identity, **changes)))

    @property
    def identity(self) -> Identity:
        """Who this client calls as."""
        return self._calls.identity

    @property
    def target(self) -> str:
        """Where it calls."""
        return self._calls.target

    @cached_property
    def tenants(self) -> TenantCalls:
        """Tenants and keys; of the memory server."""
        return TenantCalls(self._calls)

    @cached_property
    def operator(self) -> OperatorCalls:
        """The server process itself."""
        return OperatorCalls(self._calls)

    @cached_property
    def working(self) -> WorkingCalls:
        """Working memory of this client's session; of the brain."""
        return WorkingCalls(self._calls)

    @cached_property
    def contexts(self) -> ContextCalls:
        """Contexts for prompts; of the brain."""
        return ContextCalls(self._calls)

    async def ready(self, timeout_s: float = 3.0) -> None:
        """Wait for a connection; raises UnavailableError when there is none in time."""
        channel = self._calls.channel
        try:
            async with asyncio.timeout(timeout_s):
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            raise UnavailableError(
                f"nothing answers at {self.target}; start it with 'soma up', or name another target"
            ) from None

    async def close(self) -> None:
        """Close the connection; calls that still run fail."""
        if self._owns_channel:
            await self._calls.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

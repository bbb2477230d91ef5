"""Channelz: what grpc itself knows of its connections, on a port of its own for operators.

It tells addresses and counts of calls to whoever asks, so it is never served beside the services.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_reflection.v1alpha import reflection

from rpckit.server import bind


@asynccontextmanager
async def channelz_port(address: str) -> AsyncIterator[int]:
    """Serve channelz and reflection at ``host:port`` while entered, and yield the port; nothing for an empty address.

    Raises OSError for an address that cannot be had.
    """
    if not address:
        yield 0
        return
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        (channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name, reflection.SERVICE_NAME), server
    )
    port = bind(server, address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)

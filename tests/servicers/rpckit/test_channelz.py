"""Channelz on a port of its own, as grpcdebug and grpcurl ask it."""

from __future__ import annotations

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from rpckit.channelz import channelz_port
from rpckit.server import bind


async def test_channelz_tells_of_the_servers_of_this_process_and_their_calls() -> None:
    async with channelz_port("127.0.0.1:0") as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = channelz_pb2_grpc.ChannelzStub(channel)  # type: ignore[arg-type] # stubs know no aio
        await stub.GetServers(channelz_pb2.GetServersRequest())
        servers = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
        assert max(server.data.calls_started for server in servers) >= 2


async def test_without_an_address_there_is_no_channelz() -> None:
    async with channelz_port("") as port:
        assert 0 == port


async def test_a_taken_address_is_named() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = bind(server, "127.0.0.1:0")
    await server.start()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        async with channelz_port(f"127.0.0.1:{port}"):
            pass
    await server.stop(None)

"""The fault proxy does what its faults say, to new connections and to open ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.fault_proxy import Fault, FaultProxy


@pytest_asyncio.fixture(loop_scope="session")
async def proxy() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that answers every line with itself."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


class Line:
    """A connection that says a line and hears the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, proxy: FaultProxy) -> Line:
        return cls(*await asyncio.open_connection(proxy.host, proxy.port))

    def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\n")

    async def hear(self, patience_s: float = 5.0) -> str:
        async with asyncio.timeout(patience_s):
            return (await self.reader.readline()).decode().strip()

    async def ask(self, text: str) -> str:
        self.say(text)
        return await self.hear()

    async def is_broken(self) -> bool:
        try:
            return await self.ask("anybody there?") == ""
        except ConnectionError:
            return True


async def test_bytes_pass_both_ways_and_are_counted(proxy: FaultProxy) -> None:
    line = await Line.open(proxy)
    assert await line.ask("hello") == "hello"
    assert (proxy.counts.connections, proxy.counts.request_bytes, proxy.counts.reply_bytes) == (1, 6, 6)
    line.writer.close()


async def test_a_cut_breaks_open_connections_and_refuses_new_ones(proxy: FaultProxy) -> None:
    line = await Line.open(proxy)
    assert await line.ask("hello") == "hello"
    proxy.fault = Fault.CUT
    assert await line.is_broken()
    late = await Line.open(proxy)
    assert await late.is_broken()
    assert proxy.counts.cut >= 1
    proxy.fault = Fault.PASS
    assert await (await Line.open(proxy)).ask("back") == "back"


async def test_a_delay_holds_each_way_and_keeps_the_order(proxy: FaultProxy) -> None:
    line = await Line.open(proxy)
    proxy.delay_s = 0.05
    proxy.fault = Fault.DELAY
    started = time.monotonic()
    for number in range(20):
        line.say(str(number))
    assert [await line.hear() for _ in range(20)] == [str(number) for number in range(20)]
    assert 0.1 <= time.monotonic() - started < 1.0


async def test_dropped_replies_were_delivered_but_not_answered(proxy: FaultProxy) -> None:
    line = await Line.open(proxy)
    proxy.fault = Fault.DROP_REPLIES
    line.say("hello")
    with pytest.raises(TimeoutError):
        await line.hear(patience_s=0.1)
    assert (proxy.counts.request_bytes, proxy.counts.dropped_bytes) == (6, 6)
    proxy.fault = Fault.PASS
    assert await line.ask("again") == "again"


async def test_a_black_hole_takes_everything_and_gives_it_back_late(proxy: FaultProxy) -> None:
    line = await Line.open(proxy)
    proxy.fault = Fault.BLACK_HOLE
    fresh = await Line.open(proxy)
    line.say("one")
    fresh.say("two")
    with pytest.raises(TimeoutError):
        await line.hear(patience_s=0.1)
    assert proxy.counts.request_bytes == 0
    proxy.fault = Fault.PASS
    assert [await line.hear(), await fresh.hear()] == ["one", "two"]


def test_a_url_leads_through_the_proxy_with_its_account_and_path() -> None:
    proxy = FaultProxy.before("redis://user:secret@localhost:7000/3")
    proxy.port = 4711
    assert proxy.url("redis://user:secret@localhost:7000/3") == "redis://user:secret@127.0.0.1:4711/3"

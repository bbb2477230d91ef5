"""Starting and stopping: the order, the grace, signals, and what callers see meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rpckit.channel import open_channel
from rpckit.health import Health
from rpckit.interceptors import Drain, call_chain
from rpckit.lifecycle import Served, Shutdown, StopRequest, serve
from rpckit.server import bind, new_server
from rpckit.status import error_from_rpc
from soma_contract.errors import DrainingError
from tests.servicers.rpckit.kit import SERVICE, A, Keys, server_stream, unary


@dataclass
class Running:
    """A server whose life is watched."""

    events: list[str] = field(default_factory=list)
    drain: Drain = field(default_factory=Drain)
    stop: StopRequest = field(default_factory=StopRequest)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def held(self, request: Any, context: Any) -> bytes:
        self.entered.set()
        await self.release.wait()
        self.events.append("call done")
        return b"done"

    async def watch(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        self.entered.set()
        await self.drain.started.wait()
        self.events.append("stream drained")
        yield b"drain"

    async def flush(self) -> None:
        self.events.append("flushed")

    async def failing_flush(self) -> None:
        raise OSError("disk full")

    @asynccontextmanager
    async def resource(self, name: str) -> AsyncIterator[None]:
        self.events.append(f"{name} opened")
        try:
            yield
        finally:
            self.events.append(f"{name} closed")

    async def build(self, stack: AsyncExitStack) -> Served:
        await stack.enter_async_context(self.resource("pool"))
        health = await stack.enter_async_context(Health())
        server = new_server(call_chain(Keys(), drain=self.drain))
        handlers = {"Held": unary(self.held), "Watch": server_stream(self.watch)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health.add_to(server)
        self.port = bind(server, "127.0.0.1:0")
        return Served(server, self.drain, health, (self.failing_flush, self.flush), self.started.set)


@asynccontextmanager
async def running(shutdown: Shutdown) -> AsyncIterator[tuple[Running, Any, "asyncio.Task[None]"]]:
    run = Running()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        life = group.create_task(serve(run.build, shutdown, stop=run.stop))
        await run.started.wait()
        async with open_channel(f"127.0.0.1:{run.port}") as channel:
            yield run, channel, life
            run.stop.request()
            await asyncio.wait({life})


def call(channel: Any, name: str) -> Any:
    return channel.unary_unary(f"/{SERVICE}/{name}")(b"", metadata=A)


async def test_a_stop_finishes_calls_drains_streams_flushes_and_then_closes() -> None:
    async with running(Shutdown(grace_s=10)) as (run, channel, life):
        held = call(channel, "Held")
        await run.entered.wait()
        run.entered.clear()
        stream = channel.unary_stream(f"/{SERVICE}/Watch")(b"", metadata=A)
        await run.entered.wait()
        run.stop.request()
        assert [message async for message in stream] == [b"drain"]
        run.release.set()
        assert await held == b"done"
        await life
    assert run.events == ["pool opened", "stream drained", "call done", "flushed", "pool closed"]


async def test_during_the_notice_health_says_no_and_calls_are_still_served() -> None:
    async with running(Shutdown(notice_s=0.5, grace_s=10)) as (run, channel, life):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        run.stop.request()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        run.release.set()
        assert await call(channel, "Held") == b"done"
        # The watch never ends by itself; the drain ends it, so that it does not take the whole grace.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert type(error_from_rpc(caught.value)) is DrainingError
        await life


async def test_what_is_left_at_the_end_of_the_grace_is_told_to_call_again() -> None:
    async with running(Shutdown(grace_s=0.7)) as (run, channel, life):
        held = call(channel, "Held")
        await run.entered.wait()
        run.stop.request()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await held
        assert type(error_from_rpc(caught.value)) is DrainingError
        await life
    assert run.events == ["pool opened", "flushed", "pool closed"]


async def test_a_second_request_stops_at_once_and_still_closes_resources() -> None:
    async with running(Shutdown(grace_s=1000)) as (run, channel, life):
        held = call(channel, "Held")
        await run.entered.wait()
        run.stop.request()
        await run.drain.started.wait()
        run.stop.request()
        with pytest.raises(grpc.aio.AioRpcError):
            await held
        await life
    assert run.events == ["pool opened", "pool closed"]


async def test_a_stop_during_the_start_closes_what_was_opened() -> None:
    run = Running()
    reached = asyncio.Event()

    async def build(stack: AsyncExitStack) -> Served:
        await stack.enter_async_context(run.resource("pool"))
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError("never built")

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(serve(build, stop=run.stop))
        await reached.wait()
        run.stop.request()
    assert run.events == ["pool opened", "pool closed"]


async def test_a_failing_start_closes_what_was_opened_and_says_why() -> None:
    run = Running()

    async def build(stack: AsyncExitStack) -> Served:
        await stack.enter_async_context(run.resource("pool"))
        raise OSError("cannot listen")

    with pytest.raises(OSError, match="cannot listen"):
        await serve(build, stop=run.stop)
    assert run.events == ["pool opened", "pool closed"]


async def test_somebody_elses_cancellation_is_not_swallowed() -> None:
    run = Running()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        life = group.create_task(serve(run.build, stop=run.stop))
        await run.started.wait()
        life.cancel()
        await asyncio.wait({life})
    assert life.cancelled()
    assert run.events == ["pool opened", "pool closed"]


PROGRAM = """
import asyncio
import logging
from contextlib import asynccontextmanager
from rpckit.interceptors import Drain, call_chain
from rpckit.lifecycle import Served, Shutdown, serve
from rpckit.server import bind, new_server

@asynccontextmanager
async def resource():
    try:
        yield
    finally:
        print("closed", flush=True)

class Nobody:
    async def authenticate(self, token):
        raise AssertionError

async def build(stack):
    await stack.enter_async_context(resource())
    drain = Drain()
    server = new_server(call_chain(Nobody(), drain=drain))
    bind(server, "127.0.0.1:0")
    return Served(server, drain, on_started=lambda: print("started", flush=True))

logging.basicConfig(level="INFO")
asyncio.run(serve(build, Shutdown(notice_s=NOTICE)))
print("ended", flush=True)
"""


def signalled(notice_s: float, send: Callable[[subprocess.Popen[str]], None]) -> tuple[str, int]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    program = PROGRAM.replace("NOTICE", str(notice_s))
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        send(process)
        output, _ = process.communicate(timeout=30)
    return output, process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_in_order(number: signal.Signals) -> None:
    assert signalled(0, lambda process: process.send_signal(number)) == ("closed\nended\n", 0)


def test_a_second_signal_cuts_the_notice_short() -> None:
    def twice(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "not serving" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)

    assert signalled(1000, twice) == ("closed\nended\n", 0)

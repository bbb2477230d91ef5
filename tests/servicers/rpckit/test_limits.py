"""How long calls run, how many, and how they end early: deadline, admission, drain, cancellation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from rpckit.call import current_call
from rpckit.interceptors import AdmissionLimits, Call, Deadlines
from rpckit.server import ServerOptions, bind
from rpckit.status import error_from_rpc
from soma_contract.errors import (
    BudgetSpentError,
    DrainingError,
    OverloadedError,
    RateLimitedError,
    SomaError,
)
from tests.servicers.rpckit.kit import (
    A,
    Stand,
    bearer,
    both_streams,
    client_stream,
    server_stream,
    stand,
    unary,
)


class Gate:
    """A handler that holds its callers until it is opened, and notes how they left."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        self.left: list[str] = []
        self.ended = asyncio.Event()

    async def unary(self, request: Any, context: Any) -> Any:
        return await self._held()

    async def stream(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await self._held()

    async def _held(self) -> bytes:
        self.entered.release()
        try:
            await self.open.wait()
        except BaseException as error:
            self.left.append(type(error).__name__)
            raise
        finally:
            self.ended.set()
        return b"through"


async def fails(call: Any) -> SomaError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def all_of(stream: Any) -> list[bytes]:
    return [message async for message in stream]


# --- Deadlines -----------------------------------------------------------------------------------------------------


async def test_a_unary_call_without_deadline_is_given_one_and_told_where_its_time_went() -> None:
    gate = Gate()
    async with stand({"Slow": unary(gate.unary)}, deadlines=Deadlines(unary_s=0.1)) as on:
        error = await fails(on.unary("Slow"))
        assert await on.counted("TestService/Slow", "DEADLINE_EXCEEDED") == 1
    assert type(error) is BudgetSpentError
    assert error.metadata == {"stage": "handler"}
    assert gate.left == ["CancelledError"]


async def test_a_handler_knows_how_long_it_has() -> None:
    async def remaining(request: Any, context: Any) -> Any:
        return str(current_call().remaining_s()).encode()

    async with stand({"Left": unary(remaining), "Stream": both_streams(remaining)}) as on:
        imposed = float(await on.unary("Left"))
        given = float(await on.unary("Left", timeout=3))
    assert 9.0 < imposed <= 10.0
    assert 2.0 < given < 3.5


async def test_a_callers_deadline_cancels_the_handler() -> None:
    gate = Gate()
    async with stand({"Slow": unary(gate.unary), "Stream": server_stream(gate.stream)}) as on:
        error = await fails(on.unary("Slow", timeout=0.15))
        assert error.code.name == "DEADLINE_EXCEEDED"
        error = await fails(all_of(on.server_stream("Stream", timeout=0.15)))
        assert error.code.name == "DEADLINE_EXCEEDED"
        assert await on.counted("TestService/Slow", "DEADLINE_EXCEEDED") == 1
        assert await on.counted("TestService/Stream", "DEADLINE_EXCEEDED") == 1
    assert gate.left == ["CancelledError", "CancelledError"]


async def test_a_stream_without_deadline_is_left_alone() -> None:
    gate = Gate()
    async with stand({"Watch": server_stream(gate.stream)}, deadlines=Deadlines(unary_s=0.05)) as on:
        stream = on.server_stream("Watch")
        await gate.entered.acquire()
        await asyncio.sleep(0.15)
        gate.open.set()
        assert await all_of(stream) == [b"through"]


async def test_a_slow_authenticator_is_within_the_deadline() -> None:
    async with stand({"Get": unary(Gate().unary)}, deadlines=Deadlines(unary_s=0.1)) as on:
        never = asyncio.Event()

        async def hang(token: str) -> Any:
            await never.wait()

        on.keys.authenticate = hang  # type: ignore[method-assign]
        error = await fails(on.unary("Get"))
    assert error.metadata == {"stage": "authentication"}


async def test_a_timeout_of_the_handlers_own_is_not_called_a_deadline() -> None:
    async def impatient(request: Any, context: Any) -> Any:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with stand({"Get": unary(impatient)}) as on:
        assert (await fails(on.unary("Get"))).reason == "INTERNAL"


# --- Cancellation --------------------------------------------------------------------------------------------------


async def test_a_cancelled_unary_call_cancels_its_handler() -> None:
    gate = Gate()
    async with stand({"Slow": unary(gate.unary)}) as on:
        call = on.channel.unary_unary("/test.v1.TestService/Slow")(b"", metadata=A)
        await gate.entered.acquire()
        call.cancel()
        async with asyncio.timeout(5):
            await gate.ended.wait()
        assert await on.counted("TestService/Slow", "CANCELLED") == 1
    assert gate.left == ["CancelledError"]


async def test_a_generator_whose_reader_leaves_is_closed_within_the_call_even_if_it_must_await() -> None:
    ended: list[str] = []
    closed = asyncio.Event()

    async def endless(request: Any, context: Any) -> Any:
        try:
            while True:
                yield b"x" * 50_000
        except BaseException as error:
            ended.append(type(error).__name__)
            raise
        finally:
            await asyncio.sleep(0)
            ended.append(current_call().method)
            closed.set()

    async with stand({"Export": server_stream(endless)}) as on:
        stream = on.server_stream("Export")
        async for _ in stream:
            break
        stream.cancel()
        async with asyncio.timeout(5):
            await closed.wait()
        assert await on.counted("TestService/Export", "CANCELLED") == 1
    assert ended == ["GeneratorExit", "/test.v1.TestService/Export"]


async def test_a_shielded_commit_survives_the_cancellation_and_is_awaited() -> None:
    committed, may_commit, entered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        await may_commit.wait()
        committed.set()

    async def write(request: Any, context: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            commit_task = group.create_task(commit())
            entered.set()
            try:
                await asyncio.shield(commit_task)
            finally:
                await asyncio.shield(commit_task)
        return b""

    async with stand({"Remember": unary(write)}) as on:
        call = on.channel.unary_unary("/test.v1.TestService/Remember")(b"", metadata=A)
        await entered.wait()
        call.cancel()
        may_commit.set()
        async with asyncio.timeout(5):
            await committed.wait()


# --- Admission -----------------------------------------------------------------------------------------------------


async def hold(on: Stand, gate: Gate, count: int, key: str = "key-a") -> list[Any]:
    """Open ``count`` calls that stay."""
    calls = []
    for _ in range(count):
        calls.append(on.channel.unary_unary("/test.v1.TestService/Slow")(b"", metadata=bearer(key)))
        await gate.entered.acquire()
    return calls


async def test_more_calls_than_a_tenant_may_run_are_refused_at_once_and_neighbours_are_not() -> None:
    gate = Gate()
    limits = AdmissionLimits(calls_per_tenant=3)
    async with stand({"Slow": unary(gate.unary)}, limits=limits) as on:
        held = await hold(on, gate, 3)
        error = await fails(on.unary("Slow"))
        assert type(error) is OverloadedError
        assert error.metadata == {"scope": "tenant"}
        assert error.retry_after_s is not None
        assert 0 < error.retry_after_s < 1
        held += await hold(on, gate, 1, "key-b")
        gate.open.set()
        assert await asyncio.gather(*held) == [b"through"] * 4
        assert await on.unary("Slow") == b"through"


async def test_more_calls_than_a_server_may_run_are_refused_before_anybody_asks_who_calls() -> None:
    gate = Gate()
    async with stand({"Slow": unary(gate.unary)}, limits=AdmissionLimits(calls=2)) as on:
        held = await hold(on, gate, 2)
        asked = on.keys.asked
        error = await fails(on.unary("Slow", metadata=bearer("key-b")))
        assert (type(error), error.metadata) == (OverloadedError, {"scope": "server"})
        assert on.keys.asked == asked
        gate.open.set()
        assert await asyncio.gather(*held) == [b"through"] * 2


async def test_streams_of_a_tenant_are_counted_apart_from_its_calls() -> None:
    gate = Gate()
    handlers = {"Slow": unary(gate.unary), "Watch": server_stream(gate.stream), "Push": client_stream(gate.unary)}
    async with stand(handlers, limits=AdmissionLimits(streams_per_tenant=2, calls_per_tenant=1)) as on:
        streams = [on.server_stream("Watch"), on.client_stream("Push")]
        for _ in streams:
            await gate.entered.acquire()
        assert (await fails(all_of(on.server_stream("Watch")))).metadata == {"scope": "tenant"}
        held = await hold(on, gate, 1)
        gate.open.set()
        assert await held[0] == b"through"
        assert await all_of(streams[0]) == [b"through"]


@pytest.mark.parametrize("ending", ["fails", "is cancelled", "is refused"])
async def test_however_a_call_ends_its_place_is_free_again(ending: str) -> None:
    gate = Gate()

    async def fail(request: Any, context: Any) -> Any:
        raise RuntimeError("on purpose")

    handlers = {"Slow": unary(gate.unary), "Fail": unary(fail)}
    async with stand(handlers, limits=AdmissionLimits(calls=1, calls_per_tenant=1)) as on:
        for _ in range(5):
            if ending == "fails":
                await fails(on.unary("Fail"))
            elif ending == "is refused":
                await fails(on.unary("Slow", metadata=bearer("key-unknown")))
            else:
                gate.ended.clear()
                held = await hold(on, gate, 1)
                held[0].cancel()
                await gate.ended.wait()
            await on.counted("TestService/Slow", "OK")
        gate.open.set()
        assert await on.unary("Slow") == b"through"


async def test_a_rate_limit_is_the_last_gate_and_knows_the_tenant() -> None:
    class OneEach:
        name = "rate limit"

        def __init__(self) -> None:
            self.seen: set[str] = set()

        async def enter(self, call: Call) -> None:
            assert call.context.tenant is not None
            if call.context.tenant.name in self.seen:
                raise RateLimitedError(retry_after_s=2.5, limit="1")
            self.seen.add(call.context.tenant.name)

        def leave(self, call: Call) -> None:
            pass

    gate = Gate()
    gate.open.set()
    async with stand({"Get": unary(gate.unary)}, rate_limit=OneEach()) as on:
        assert await on.unary("Get") == b"through"
        error = await fails(on.unary("Get"))
        assert (type(error), error.retry_after_s) == (RateLimitedError, 2.5)
        assert await on.unary("Get", metadata=bearer("key-b")) == b"through"


# --- Drain ---------------------------------------------------------------------------------------------------------


async def test_a_draining_server_finishes_what_runs_and_refuses_what_comes() -> None:
    gate = Gate()
    async with stand({"Slow": unary(gate.unary)}) as on:
        held = await hold(on, gate, 1)
        on.drain.begin()
        error = await fails(on.unary("Slow"))
        assert type(error) is DrainingError
        assert error.retry_after_s is not None
        gate.open.set()
        assert await held[0] == b"through"


async def test_a_long_stream_can_watch_the_drain_and_end_by_itself() -> None:
    async with contextlib.AsyncExitStack() as stack:
        box: list[Stand] = []

        async def watch(request: Any, context: Any) -> Any:
            yield b"change"
            await box[0].drain.started.wait()
            yield b"drain"

        box.append(await stack.enter_async_context(stand({"Watch": server_stream(watch)})))
        stream = box[0].server_stream("Watch")
        assert await stream.read() == b"change"
        box[0].drain.begin()
        assert [await stream.read(), await stream.read()] == [b"drain", grpc.aio.EOF]


async def test_what_is_cut_ends_with_a_status_that_says_to_call_again() -> None:
    gate = Gate()
    async with stand({"Slow": unary(gate.unary), "Watch": server_stream(gate.stream)}) as on:
        call, stream = (await hold(on, gate, 1))[0], on.server_stream("Watch")
        await gate.entered.acquire()
        on.drain.begin()
        assert on.drain.running == 2
        assert on.drain.cut() == 2
        assert type(await fails(call)) is DrainingError
        assert type(await fails(all_of(stream))) is DrainingError
        assert on.drain.running == 0 or await on.counted("TestService/Slow", "UNAVAILABLE") == 1
    assert gate.left == ["CancelledError", "CancelledError"]


# --- The transport's own limits --------------------------------------------------------------------------------------


async def test_a_request_at_the_limit_passes_and_one_far_over_it_is_refused() -> None:
    async def size(request: bytes, context: Any) -> bytes:
        return str(len(request)).encode()

    async with stand({"Put": unary(size)}, options=ServerOptions(max_request_bytes=100_000, slack_bytes=1000)) as on:
        assert await on.unary("Put", b"x" * 100_000) == b"100000"
        assert (await fails(on.unary("Put", b"x" * 200_000))).code.name == "RESOURCE_EXHAUSTED"


async def test_a_port_in_use_is_an_error_and_shared_only_by_workers() -> None:
    async with stand({}) as on:
        second = grpc.aio.server(options=ServerOptions().arguments())
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{on.port}"):
            bind(second, f"127.0.0.1:{on.port}")
        await second.stop(None)
    workers = [grpc.aio.server(options=ServerOptions(workers=True).arguments()) for _ in range(2)]
    port = bind(workers[0], "127.0.0.1:0")
    assert bind(workers[1], f"127.0.0.1:{port}") == port
    for server in workers:
        await server.stop(None)


async def test_grpc_alone_would_let_two_servers_share_the_port() -> None:
    """The control: this is what ``grpc.so_reuseport=0`` is for."""
    servers = [grpc.aio.server() for _ in range(2)]
    port = servers[0].add_insecure_port("127.0.0.1:0")
    assert servers[1].add_insecure_port(f"127.0.0.1:{port}") == port
    for server in servers:
        await server.stop(None)


async def test_a_burst_of_honest_calls_on_one_connection_is_not_refused_by_the_transport() -> None:
    async def answer(request: Any, context: Any) -> bytes:
        return b""

    async with stand({"Get": unary(answer)}, limits=AdmissionLimits(calls=300, calls_per_tenant=300)) as on:
        for _ in range(5):
            assert await asyncio.gather(*[on.unary("Get") for _ in range(300)]) == [b""] * 300

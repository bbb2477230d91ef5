"""What telemetry costs while nothing is exported: memory servers with and without it, in turns, in one run.

    ./dev bench telemetry [--seconds 3] [--rounds 5] [--callers 32]

Three real memory servers stand on the same real stores and answer the same Get by turns: one that tells nothing, one
that counts for Prometheus, and one as it is shipped, which writes a log line a call too. No collector is named and no
ops port is open. A round is cut into slices, so that what else the machine does meets all three alike. Prints calls a
second, the processor time a server spends on a call, which other load disturbs less, and the median over the rounds of
each one's ratio to the one that tells nothing; then what telling of a call costs by itself, which other load hardly
disturbs. Exits 1 when the shipped one keeps less than .95 of the calls a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

import memory_server.app as app
from bench.places import workspace
from memory_server.settings import MemorySettings
from rpckit.call import CallContext
from rpckit.layer import Call, Method
from rpckit.metadata import new_request_id
from rpckit.telemetry.calls import CallTelemetry
from rpckit.telemetry.logs import configure_logging
from rpckit.telemetry.metrics import PrometheusMetrics
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma_contract.tenant import admin_tenant
from soma_embedded import EmbeddedStores
from soma_embedded.ports import LOOPBACK, free_port

FLOOR = 0.95
SLICE_S = 0.5
MODES = ("nothing", "metrics", "shipped")
KEY = "soma_telemetry00_" + "t" * 40
METADATA = (("authorization", f"Bearer {KEY}"),)


class NothingTold(CallTelemetry):
    """Tells nothing of a call."""

    def begin(self, call: Call) -> None:
        """A call has arrived."""

    def finish(self, call: Call) -> None:
        """The call has ended."""


def serve(mode: str) -> None:
    """Be one of the three servers until SIGTERM."""
    configure_logging()
    if mode != "shipped":
        logging.getLogger("soma.calls").setLevel(logging.CRITICAL)
    if mode == "nothing":
        setattr(app, "CallTelemetry", NothingTold)  # noqa: B010 - app makes it by this name
    asyncio.run(app.run(MemorySettings()))  # type: ignore[call-arg, unused-ignore] # the environment fills it


@contextmanager
def sent_to(log: Path) -> Iterator[Any]:
    """A file that a server writes its lines to, as under `soma up`."""
    with log.open("wb") as file:
        yield file


@dataclass(frozen=True, slots=True)
class Server:
    """One of the three."""

    address: str
    process: psutil.Process

    def spent_s(self) -> float:
        """Processor time until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


async def server(stack: AsyncExitStack, mode: str, environment: Mapping[str, str], directory: Path) -> Server:
    """Start one of the three; returns when it answers."""
    address = f"{LOOPBACK}:{free_port()}"
    log = stack.enter_context(sent_to(directory / f"{mode}.log"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.telemetry",
        "--serve",
        mode,
        env={**os.environ, **environment, "SOMA_MEMORY_ADDRESS": address},
        stdout=log,
        stderr=log,
    )

    async def stop() -> None:
        if process.returncode is None:
            process.terminate()
        await process.wait()

    stack.push_async_callback(stop)
    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 60)
    return Server(address, psutil.Process(process.pid))


async def turn(server: Server, memory_id: str, callers: int, seconds: float) -> tuple[int, float, float]:
    """Let so many callers get, each with one call in flight; returns calls, seconds and processor seconds."""
    request = pb.GetRequest(target=common.MemoryTarget(memory_id=memory_id))
    done = 0
    async with grpc.aio.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = rpc.MemoryServiceStub(channel)
        for _ in range(50):
            await stub.Get(request, metadata=METADATA)
        start, spent_s = time.perf_counter(), server.spent_s()

        async def call() -> None:
            nonlocal done
            while time.perf_counter() - start < seconds:
                await stub.Get(request, metadata=METADATA)
                done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call())
        return done, time.perf_counter() - start, server.spent_s() - spent_s


async def measure(seconds: float, rounds: int, callers: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Calls a second, and a second of processor time, of each server, round by round."""
    async with AsyncExitStack() as stack:
        path = stack.enter_context(workspace())
        stores = await stack.enter_async_context(EmbeddedStores(path / "stores"))
        keys = path / "keys.json"
        keys.write_text(json.dumps([{"key": KEY, "tenants": ["bench"], "scopes": ["*"]}]))
        environment = {
            **stores.environment(),
            "SOMA_EMBEDDER": "hashing",
            "SOMA_TESTING": "1",
            "SOMA_BOOTSTRAP_KEY_FILE": str(keys),
            "SOMA_RECONCILE_EVERY_S": "0",
            "SOMA_INDEX_POLL_S": "5",
        }
        servers = {mode: await server(stack, mode, environment, path) for mode in MODES}
        async with grpc.aio.insecure_channel(servers["nothing"].address) as channel:
            stored = await rpc.MemoryServiceStub(channel).Remember(
                pb.RememberRequest(memory=memory_pb2.Memory(text="Ada prefers tea")), metadata=METADATA
            )
        rates: dict[str, list[float]] = {mode: [] for mode in MODES}
        by_processor: dict[str, list[float]] = {mode: [] for mode in MODES}
        slices = max(1, round(seconds / SLICE_S))
        for _ in range(rounds):
            sums = dict.fromkeys(MODES, (0.0, 0.0, 0.0))
            for number in range(slices):
                # Who comes first changes, so that no place in the round is a favour.
                for mode in (*MODES[number % 3 :], *MODES[: number % 3]):
                    took = await turn(servers[mode], stored.memory.memory_id, callers, seconds / slices)
                    sums[mode] = (sums[mode][0] + took[0], sums[mode][1] + took[1], sums[mode][2] + took[2])
            for mode, (calls, elapsed_s, spent_s) in sums.items():
                rates[mode].append(calls / elapsed_s)
                by_processor[mode].append(calls / spent_s)
        return rates, by_processor


def by_itself() -> float:
    """Seconds that telling of one call takes, its log line written to a file: the least of many short tries."""
    path = "/soma.memory.v1.MemoryService/Get"
    call = Call(
        Method(path, "MemoryService/Get", is_stream=False, is_open=False),
        wire=None,  # type: ignore[arg-type] # not looked at
        received=None,  # type: ignore[arg-type] # not looked at
        context=CallContext(path, request_id=new_request_id(), tenant=admin_tenant("bench", reason="a measurement")),
    )
    telemetry, turns = CallTelemetry(PrometheusMetrics()), 200

    def tell() -> None:
        telemetry.begin(call)
        telemetry.finish(call)

    with tempfile.TemporaryFile("w") as lines:
        configure_logging(stream=lines)
        return min(timeit.repeat(tell, number=turns, repeat=300)) / turns


def main(arguments: list[str]) -> int:
    """Measure, print, and compare with the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--serve", choices=MODES, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        serve(chosen.serve)
        return 0
    print(f"load average before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    rates, by_processor = asyncio.run(measure(chosen.seconds, chosen.rounds, chosen.callers))
    kept = dict.fromkeys(MODES, 1.0)
    for what, found in (("calls/s", rates), ("calls/s of processor", by_processor)):
        for mode in MODES:
            ratios = [one / bare for one, bare in zip(found[mode], found["nothing"], strict=True)]
            keeps = statistics.median(ratios)
            if found is rates:
                kept[mode] = keeps
            each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"{mode:<8} {statistics.median(found[mode]):>6.0f} {what:<20}  keeps {keeps:.3f}  ({each})")
    alone_s, call_s = by_itself(), 1 / statistics.median(by_processor["nothing"])
    share = f"{alone_s / call_s:.1%} of {call_s * 1e6:.0f} us of processor time a call"
    print(f"by itself, with its log line: {alone_s * 1e6:.1f} us, {share}")
    print(f"load average after: {os.getloadavg()[0]:.1f}; floor: shipped keeps {FLOOR}")
    return 0 if kept["shipped"] >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

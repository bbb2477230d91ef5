"""Servers as children: ready by their health, started again when killed, ended when told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from soma_embedded import EmbeddedError, EmbeddedStack, StackSettings, StartError, State
from soma_embedded.child import Child
from soma_embedded.directory import DataDirectory
from soma_embedded.identity import started
from soma_embedded.keys import Keys
from soma_embedded.ports import LOOPBACK, free_port
from soma_embedded.servers import SomaServer
from tests.support.stores import data_directory

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]


@contextlib.asynccontextmanager
async def health_server(*, ready_within_s: float = 30.0) -> AsyncIterator[tuple[Child, Path]]:
    """A server whose health can be decided, not yet started, and the file that makes it say SERVING."""
    with data_directory() as path:
        directory = DataDirectory(path)
        serving = path / "serving"
        port = free_port()
        environment = {
            "PYTHONPATH": str(ROOT),
            "SOMA_MEMORY_ADDRESS": f"{LOOPBACK}:{port}",
            "SOMA_TEST_SERVING": str(serving),
        }
        module = "tests.support.health_server"
        with directory.hold():
            server = SomaServer("memory", module, directory, port, environment, stop_grace_s=5)
            child = Child(server, directory, ready_within_s=ready_within_s)
            try:
                yield child, serving
            finally:
                await child.stop()


async def test_a_server_is_ready_when_its_health_says_so_and_not_before() -> None:
    async with health_server() as (child, serving):
        async with asyncio.TaskGroup() as group:
            start = group.create_task(child.start())
            async with asyncio.timeout(30):
                while child.pid is None or not await _accepts(child.program.port):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (State.STARTING, False) == (child.state, start.done())
            serving.touch()
        assert child.state is State.READY


async def test_a_killed_server_is_started_again_and_a_stopped_one_is_not() -> None:
    async with health_server() as (child, serving):
        serving.touch()
        await child.start()
        killed = child.pid
        await child.kill(signal.SIGKILL)
        await child.ready()
        running = child.pid
        assert (1, True) == (child.restarts, running not in {None, killed})
        await child.stop()
        assert (None, State.STOPPED, None) == (child.pid, child.state, started(running or 0))


async def test_a_server_that_never_serves_fails_the_start_with_its_last_words() -> None:
    async with health_server(ready_within_s=3) as (child, _):
        with pytest.raises(StartError, match="memory was not ready within 3 s"):
            await child.start()
        assert child.pid is None


def test_an_address_without_a_port_is_refused_before_anything_starts() -> None:
    with pytest.raises(EmbeddedError, match="--brain-address 'localhost' is not of the form host:port"):
        EmbeddedStack(Path("unused"), StackSettings(brain_address="localhost"))


def test_the_keys_of_a_directory_stay_the_same_and_differ_from_another_directory() -> None:
    def keys() -> tuple[str, str]:
        return Keys(directory).development, Keys(directory).brain_file.read_text()

    with data_directory() as path:
        directory = DataDirectory(path)
        with directory.hold():
            first, again = keys(), keys()
    with data_directory() as path:
        directory = DataDirectory(path)
        with directory.hold():
            other = keys()
    assert first == again
    assert len({*first, *other}) == 4


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True

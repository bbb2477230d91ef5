"""What a killed supervisor leaves behind, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from soma_embedded import DirectoryInUseError, EmbeddedStores, EngineMissingError
from soma_embedded.directory import DataDirectory
from soma_embedded.engines import _program
from soma_embedded.identity import ProcessRecord, started
from soma_embedded.program import WrongProcessError
from soma_embedded.redis import Redis
from soma_embedded.supervision import stop_leftovers
from tests.support.stores import data_directory

pytestmark = [pytest.mark.stores, pytest.mark.processes]

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534


@contextlib.asynccontextmanager
async def supervisor(
    directory: Path, *, before: Sequence[str] = ()
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """A process of its own that holds the stores of a directory, and what it said when they were ready."""
    paths = [str(ROOT / part) for part in (".", "generated", "clients/python", "deploy/embedded")]
    process = await asyncio.create_subprocess_exec(
        *before,
        sys.executable,
        "-m",
        "tests.support.hold_stores",
        str(directory),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 90)
        assert line, (await process.stderr.read()).decode()
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), 60)


@contextlib.contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any store."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


async def ended(pids: Sequence[int]) -> None:
    async with asyncio.timeout(10):
        while any(started(pid) is not None for pid in pids):  # noqa: ASYNC110 - another process's end has no event
            await asyncio.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_no_store_outlives_a_killed_supervisor_and_the_next_one_finds_the_data() -> None:
    with data_directory() as path:
        async with supervisor(path / "data") as (process, place):
            connection = await asyncpg.connect(place["postgres"])
            await connection.execute("CREATE TABLE kept AS SELECT 7 AS id")
            process.kill()
            await process.wait()
            await ended(list(place["pids"].values()))
        async with supervisor(path / "data") as (_, place):
            connection = await asyncpg.connect(place["postgres"])
            kept = await connection.fetchval("SELECT id FROM kept")
            await connection.close()
    assert kept == 7


async def test_a_second_supervisor_of_a_directory_is_refused_and_told_who_holds_it() -> None:
    with data_directory() as path:
        async with supervisor(path / "data") as (process, _):
            with pytest.raises(DirectoryInUseError) as refusal:
                async with EmbeddedStores(path / "data"):
                    pass
        assert process.pid == refusal.value.pid
        assert f"in use by process {process.pid}" in str(refusal.value)


async def test_the_stores_run_for_an_ordinary_user() -> None:
    with data_directory() as path:
        before: list[str] = []
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
            before = as_nobody()
        async with supervisor(path / "data", before=before) as (_, place):
            connection = await asyncpg.connect(place["postgres"])
            answer = await connection.fetchval("SELECT 1")
            await connection.close()
        owner = (path / "data" / "postgres" / "18").stat().st_uid
    assert (1, place["user"]) == (answer, owner)
    assert place["user"] != 0


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="there is nothing to give up")
async def test_under_root_postgres_keeps_of_its_rights_only_that_to_pass_directories(stores: EmbeddedStores) -> None:
    status = Path(f"/proc/{stores.pids['postgres']}/status").read_text()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    read_search, override = 1 << 2, 1 << 1
    assert "0" not in fields["Uid"]
    assert int(fields["CapEff"][0], 16) in {0, read_search, override}
    assert [] == fields["Groups"]


def as_nobody() -> list[str]:
    """The words before a command that run it as nobody, able to read the interpreter wherever it is installed."""
    assert shutil.which("setpriv"), "setpriv is missing: on Debian and Ubuntu, apt install util-linux"
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # The interpreter may lie under /root: then let nobody read there, and still write nowhere.
    starts_itself = "import subprocess, sys; subprocess.check_call([sys.executable, '-c', ''])"
    if subprocess.run([*user, sys.executable, "-c", starts_itself], capture_output=True).returncode == 0:
        return user
    return [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


async def test_postgres_starts_though_its_stale_pid_file_names_a_living_stranger() -> None:
    with data_directory() as path, stranger() as other:
        data = path / "data"
        async with supervisor(data):
            pass
        cluster = data / "postgres" / "18"
        (cluster / "postmaster.pid").write_text(f"{other.pid}\n{cluster}\n1\n1\n\n127.0.0.1\n\nready\n")
        if os.geteuid() == 0:
            os.chown(cluster / "postmaster.pid", cluster.stat().st_uid, -1)
        async with supervisor(data) as (_, place):
            connection = await asyncpg.connect(place["postgres"])
            await connection.close()
        assert other.poll() is None


async def test_a_recorded_process_that_still_runs_is_ended() -> None:
    with data_directory() as path, stranger() as left:
        directory = DataDirectory(path)
        with directory.hold():
            ProcessRecord(left.pid, started(left.pid) or "", int(signal.SIGTERM)).write(directory.record("redis"))
            assert ["redis"] == stop_leftovers(directory)
            assert left.wait(5) == -signal.SIGTERM
            assert not directory.record("redis").exists()


async def test_a_process_that_has_inherited_a_recorded_pid_is_left_alone() -> None:
    with data_directory() as path, stranger() as other:
        directory = DataDirectory(path)
        with directory.hold():
            ProcessRecord(other.pid, "another boot:1", int(signal.SIGTERM)).write(directory.record("redis"))
            assert [] == stop_leftovers(directory)
            assert other.poll() is None


async def test_a_store_is_not_ready_while_another_process_answers_on_its_port(stores: EmbeddedStores) -> None:
    redis = stores.children["redis"]
    pid = redis.pid
    assert pid is not None
    await redis.program.probe(pid)
    with pytest.raises(WrongProcessError):
        await redis.program.probe(pid + 1)
    milvus = stores.children["milvus"]
    with pytest.raises(WrongProcessError):
        await milvus.program.probe(pid)


async def test_secrets_are_readable_by_their_owner_only_and_stay_the_same() -> None:
    with data_directory() as path:
        directory = DataDirectory(path)
        with directory.hold():
            url = Redis(directory, 1).url
            modes = [oct(file.stat().st_mode & 0o777) for file in (path / "secrets").iterdir()]
            again = Redis(directory, 1).url
    assert (url, ["0o600"]) == (again, modes)


def test_a_missing_wheel_is_named() -> None:
    with pytest.raises(EngineMissingError, match="comes with the wheel absent-wheel"):
        _program("Redis", "absent_package", "absent-wheel", "bin", "redis-server")

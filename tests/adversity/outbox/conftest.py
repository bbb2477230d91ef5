"""A brain in a process of its own, the disk it stands on, and the ledger of what it promised."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def require(present: bool, what: str) -> None:
    """Skip by name without a tool, and fail where it must be there."""
    if not present:
        text = f"missing: {what}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)


class Ledger:
    """What was acknowledged, to be held against what a restart has."""

    def __init__(self) -> None:
        self.writes: set[str] = set()
        self.settled: set[str] = set()
        self.observed = 0
        self.items: set[str] = set()
        self.acknowledged = 0
        self.lost: list[str] = []

    def take(self, line: str) -> None:
        word, *rest = line.split(" ", 1)
        if word == "w":
            self.acknowledged += 1
            self.writes.add(rest[0])
        elif word == "o":
            self.acknowledged += 1
            sequence, admitted, evicted = rest[0].split()
            self.observed = int(sequence)
            self.items |= {admitted} - {"-"}
            self.items -= {evicted}

    def compare(self, have: dict[str, object]) -> None:
        """Note what was acknowledged and is not there, then go on from what is."""
        writes, items, sequence = set(have["writes"]), set(have["items"]), have["sequence"]  # type: ignore[call-overload]
        assert isinstance(sequence, int)
        self.lost += sorted(self.writes - writes)
        self.lost += [f"observation {number}" for number in range(sequence + 1, self.observed + 1)]
        # One more observation may have been on the disk, not acknowledged yet: it may have evicted one item.
        unacknowledged = sequence - self.observed
        missing = self.items - items
        if len(missing) > max(0, unacknowledged):
            self.lost += sorted(missing)
        self.settled |= writes
        self.writes, self.observed, self.items = set(), sequence, items


class BrainProcess:
    """A running `brain_child.py`."""

    def __init__(self, directory: Path, ledger: Ledger, *flags: str, under: tuple[str, ...] = ()) -> None:
        self.ledger = ledger
        self.lines = 0
        self.refusals: list[str] = []
        self.have: dict[str, object] | None = None
        self._news = threading.Condition()
        self._ended = False
        command = [*under, sys.executable, str(HERE / "brain_child.py"), str(directory), *flags]
        paths = [str(ROOT), str(ROOT / "generated")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith("\n"):
                break
            with self._news:
                self._take(line.strip())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _take(self, line: str) -> None:
        if line.startswith("have "):
            self.have = json.loads(line[5:])
            self.ledger.compare(self.have)
        elif line.startswith("refused "):
            self.refusals.append(line.split()[1])
        else:
            self.lines += 1
            self.ledger.take(line)

    def wait_for_acknowledgements(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until it has acknowledged so many, or has ended."""
        with self._news:
            done = self._news.wait_for(lambda: self.lines >= count or self._ended, timeout_s)
        assert done, f"only {self.lines} of {count} acknowledgements came"

    def wait_for_refusals(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until it has refused so many."""
        with self._news:
            done = self._news.wait_for(lambda: len(self.refusals) >= count or self._ended, timeout_s)
        assert done, f"only {len(self.refusals)} of {count} refusals came"

    def kill(self) -> None:
        """Kill it, with what it runs under, and take in what it said last."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.join()

    def join(self) -> str:
        """Wait for its end and return what it complained of."""
        assert self.process.stderr is not None
        complaints = self.process.stderr.read()
        self.process.wait(60)
        self._reader.join(60)
        return complaints

    def must_have_started(self) -> None:
        """Fail with its complaints unless it came up."""
        self.wait_for_acknowledgements(1)
        if self.have is None:
            pytest.fail(f"the brain did not come up: {self.join()}")


class LossyMount:
    """A mounted `lossy_disk.py`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "lossy_disk.py"), str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Its first answer says that it is listening; the mount follows at once, and is waited for by name.
        self.on()
        for _ in range(1_000):
            if place.is_mount():
                return
            try:
                self.process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            break
        require(False, "leave to mount a file system (root, or fusermount3 and --cap-add SYS_ADMIN in a container)")

    def cut(self, seed: int, share: float) -> None:
        """Cut the power: nothing works until `on`, and what was not fsynced is lost but for a random share."""
        self._order(f"cut {seed} {share}")

    def on(self) -> None:
        """Switch it on again."""
        self._order("on")

    def leave(self) -> None:
        """Unmount it and end its process."""
        assert self.process.stdin is not None
        self.process.stdin.write("bye\n")
        self.process.stdin.close()
        self.process.wait(30)

    def _order(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer == line.split(maxsplit=1)[0], f"the lossy disk is gone: {answer!r}"


@pytest.fixture
def lossy_mount(tmp_path: Path) -> Iterator[LossyMount]:
    """A disk that forgets what was not fsynced."""
    require(importlib.util.find_spec("mfusepy") is not None, "mfusepy (./dev installs it)")
    require(shutil.which("fusermount3") is not None, "fusermount3 (Debian package fuse3)")
    require(Path("/dev/fuse").exists(), "/dev/fuse (run the container with --device /dev/fuse --cap-add SYS_ADMIN)")
    mount = LossyMount(tmp_path / "disk")
    yield mount
    mount.leave()


@pytest.fixture
def strace() -> str:
    """The path of strace."""
    path = shutil.which("strace")
    require(path is not None, "strace (Debian package strace)")
    assert path is not None
    return path


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()

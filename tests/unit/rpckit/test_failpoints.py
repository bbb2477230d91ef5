"""Where a test may let a process die: all places are known, and nothing dies unless told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rpckit.failpoints import POINTS, arm, failpoint

ROOT = Path(__file__).parents[3]
PASSING = "from rpckit.failpoints import *; listen(); [failpoint('index.settled') for _ in range({})]; print('alive')"


def ran(order: str, passes: int, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "failpoint"
    if order:
        file.write_text(order)
    env = {"PATH": os.environ["PATH"], "SOMA_FAILPOINT_FILE": str(file), **environment}
    command = [sys.executable, "-c", PASSING.format(passes).replace("*", "failpoint, listen")]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_the_list_of_places_is_what_the_code_passes() -> None:
    called = re.compile(r'failpoint\("([a-z_.]+)"(?: if \w+ else "([a-z_.]+)")?\)')
    found = [
        name
        for package in ("memory_server", "brain_server")
        for path in sorted((ROOT / package).rglob("*.py"))
        for match in called.finditer(path.read_text())
        for name in match.groups()
        if name
    ]
    assert sorted(POINTS) == sorted(found)


def test_a_process_dies_at_the_hit_it_was_told(tmp_path: Path) -> None:
    assert -signal.SIGKILL == ran("index.settled:3", 3, tmp_path, SOMA_TESTING="1").returncode


@pytest.mark.parametrize(
    ("order", "testing"),
    [("index.settled:4", "1"), ("index.claimed:1", "1"), ("", "1"), ("index.settled:1", "0"), ("index.settled:1", "")],
)
def test_a_process_lives_on_otherwise(order: str, testing: str, tmp_path: Path) -> None:
    done = ran(order, 3, tmp_path, SOMA_TESTING=testing)
    assert (0, "alive\n") == (done.returncode, done.stdout)


def test_an_order_is_for_one_life(tmp_path: Path) -> None:
    assert 0 != ran("index.settled", 1, tmp_path, SOMA_TESTING="1").returncode
    assert 0 == ran("", 1, tmp_path, SOMA_TESTING="1").returncode


def test_only_places_that_exist_can_be_armed() -> None:
    with pytest.raises(ValueError, match="no failpoint"):
        arm("index.setled")
    failpoint("index.settled")

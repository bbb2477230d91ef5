"""Tests that can fail: each planted bug is caught by the test that is named for it.

The code is copied, the bug put into the copy, and the test run there; the same tests pass in a copy without it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.adversity.torture.bugs import BUGS, Edit
from tests.adversity.torture.parts import Part
from tests.adversity.torture.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[3]
_SOURCES = (".", "generated", "clients/python", "deploy/embedded")
AT_ONCE = 2
_WITHIN_S = 300.0
_PASSED, _FAILED = 0, 1
_ENDED = re.compile(r"^\d+ (?:passed|failed|error).*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of tests ended."""

    code: int
    said: str
    took_s: float


async def plant(count: int, seed: int) -> Part:
    """Plant bugs drawn by the seed, 0 is all of them, and see that their tests fail."""
    bugs = random.Random(seed).sample(BUGS, count or len(BUGS))
    turns = asyncio.Semaphore(AT_ONCE)

    async def tried(edits: Sequence[Edit], tests: Sequence[str]) -> Outcome:
        async with turns:
            with copied() as place:
                for edit in edits:
                    apply(place, edit)
                return await asyncio.to_thread(run, place, tests)

    control, *outcomes = await asyncio.gather(
        tried((), [bug.test for bug in bugs]), *(tried(bug.edits, [bug.test]) for bug in bugs)
    )
    verdicts = [Verdict("without a bug all these tests pass", control.code == _PASSED, control.said)]
    for bug, outcome in zip(bugs, outcomes, strict=True):
        told = f"`{bug.test.rpartition('::')[2]}`: {outcome.said}"
        verdicts.append(Verdict(f"caught: {bug.name}", outcome.code == _FAILED, told))
    return Part("planted bugs", verdicts, {"bugs": f"{len(bugs)} of {len(BUGS)}"})


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of everything that is under version control, as it is now."""
    place = Path(tempfile.mkdtemp(prefix="soma-planted-"))
    place.chmod(0o755)
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            source = ROOT / name
            if source.is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place / name)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def apply(place: Path, edit: Edit) -> None:
    """Make an edit; raises ValueError unless what it replaces is there once."""
    path = place / edit.path
    text = path.read_text(encoding="utf-8")
    if text.count(edit.before) != 1:
        raise ValueError(f"{edit.before!r} is {text.count(edit.before)} times in {edit.path}")
    path.write_text(text.replace(edit.before, edit.after), encoding="utf-8")


def environment(place: Path) -> dict[str, str]:
    """What makes processes run the code of a copy."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(place / one) for one in _SOURCES)}


def run(place: Path, tests: Sequence[str]) -> Outcome:
    """Run tests in a copy."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *dict.fromkeys(tests)]
    try:
        ran = subprocess.run(
            command,
            cwd=place,
            env=environment(place),
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(-1, f"not ended within {_WITHIN_S:g} s", time.monotonic() - began)
    lines = _ENDED.findall(ran.stdout)
    said = lines[-1] if lines else (ran.stdout + ran.stderr).strip()[-300:]
    return Outcome(ran.returncode, said, time.monotonic() - began)

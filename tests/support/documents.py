"""Documents whose commands are run: the fenced ``console`` blocks of a Markdown page.

    ```console
    $ soma get user.drink
    Ada prefers tea
    ```

A line that starts with ``$ `` is a command; it goes on after a backslash, within quotes, and up to the end of its
here-document.  Other lines are what it prints, in this order; ``…`` stands for any text, on a line of its own for any
lines.  The block's first line may say ``console exits=5`` for a command that is to fail, and ``console help`` for one
too heavy to run, which is checked against the help of ``soma`` instead.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^\s*```(\S*)\s*(.*)$")
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
_MARK = "soma-step-ended"
STEP_S = 120.0


@dataclass(slots=True)
class Step:
    """One command of a page and what the page says it prints."""

    page: str
    line: int
    command: str
    exits: int = 0
    help_only: bool = False
    shown: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


def steps(page: Path) -> list[Step]:
    """All commands of a page, in their order."""
    found: list[Step] = []
    lines = enumerate(page.read_text().splitlines(), 1)
    for _, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            continue
        block = list(_until_fence(lines))
        if fence[1] == "console":
            found += _block(page.name, fence[2].split(), block)
    return found


def _until_fence(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if _FENCE.match(line):
            return
        yield number, line


def _block(page: str, words: list[str], lines: list[tuple[int, str]]) -> list[Step]:
    exits = next((int(word.removeprefix("exits=")) for word in words if word.startswith("exits=")), 0)
    found: list[Step] = []
    rest = iter(lines)
    for number, line in rest:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\") or not _quotes_end(command):
                command += "\n" + next(rest)[1]
            if document := _HEREDOC.search(command):
                while not command.endswith(f"\n{document[1]}"):
                    command += "\n" + next(rest)[1]
            found.append(Step(page, number, command, exits, "help" in words))
        elif found:
            found[-1].shown.append(line)
        else:
            raise ValueError(f"{page}:{number}: a console block begins with its command, '$ …'")
    if exits:
        for step in found[:-1]:
            step.exits = 0  # what fails is the last command
    return found


def _quotes_end(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def mismatch(step: Step, output: str) -> str:
    """What of the shown lines the output lacks, in their order; empty if nothing."""
    told = iter(output.splitlines())
    anywhere = False
    for line in step.shown:
        if line.strip() == "…":
            anywhere = True
            continue
        pattern = re.compile(".*".join(map(re.escape, line.strip().split("…"))))
        for candidate in told:
            if pattern.fullmatch(candidate.strip()):
                break
            if not anywhere:
                return f"shown {line!r}, printed {candidate!r}"
        else:
            return f"{line!r} was not printed"
        anywhere = False
    return ""


class Shell:
    """One bash in which the steps of a page run after one another, so that variables last.

    ``replaced`` maps what pages say to what holds here, such as addresses.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], replaced: Mapping[str, str]) -> None:
        self._replaced = dict(replaced)
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.wait(30)
        self._bash.stdout.close()

    def run(self, command: str) -> tuple[int, str]:
        """Run one command; returns its exit code and what it printed, in the page's words."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        for said, holds in self._replaced.items():
            command = command.replace(said, holds)
        # Standard input is the script itself: a command must not eat what follows it.
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' {_MARK} $?\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        watchdog = threading.Timer(STEP_S, self._bash.kill)
        watchdog.start()
        try:
            for line in self._bash.stdout:
                if line.startswith(_MARK):
                    code = int(line.split()[1])
                    break
                printed.append(line)
            else:
                raise AssertionError(f"the shell ended in: {command}\n{''.join(printed)}")
        finally:
            watchdog.cancel()
        output = "".join(printed).removesuffix("\n")
        for said, holds in self._replaced.items():
            output = output.replace(holds, said)
        return code, output

    def follow(self, step: Step) -> None:
        """Run a step and compare; raises AssertionError that shows the place and what was printed."""
        code, output = self.run(step.command)
        fault = f"exits with {code}, not {step.exits}" if code != step.exits else mismatch(step, output)
        assert not fault, f"{step.place}: {fault}\n$ {step.command}\n{output}"

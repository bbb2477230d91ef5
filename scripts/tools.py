"""Programs that tests call and no wheel brings: built from Go modules into a cache outside the tree.

python scripts/tools.py            builds all that are missing and prints where they are
python scripts/tools.py grpcurl    one of them
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BUILD_S = 900.0


@dataclass(frozen=True, slots=True)
class GoTool:
    """A command of a Go module."""

    package: str
    version: str


TOOLS = {
    "grpcurl": GoTool("github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3"),
}


class ToolMissingError(Exception):
    """The tool is not there and cannot be built here."""


def cache_dir() -> Path:
    """``$SOMA_CACHE``, else ``$XDG_CACHE_HOME/soma``, else ``~/.cache/soma``; the tools are under ``tools``."""
    if chosen := os.environ.get("SOMA_CACHE"):
        return Path(chosen) / "tools"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soma" / "tools"


def tool(name: str) -> Path:
    """The program, built now if it was not before.  Raises ToolMissingError that says what is missing."""
    wanted = TOOLS[name]
    place = cache_dir() / f"{name}-{wanted.version}"
    program = place / name
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise ToolMissingError(f"{name} {wanted.version} is built by Go, which is not installed")
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():  # another process may have built it while this one waited
            _build(go, wanted, place)
    return program


def _build(go: str, wanted: GoTool, place: Path) -> None:
    # Built beside its place and moved, so that an interrupted build leaves nothing that looks whole.
    unfinished = place / "unfinished"
    environment = {**os.environ, "GOBIN": str(unfinished), "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"}
    command = ["nice", go, "install", f"{wanted.package}@{wanted.version}"]
    try:
        built = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=BUILD_S)
    except subprocess.TimeoutExpired:
        raise ToolMissingError(f"building {wanted.package} took over {BUILD_S:.0f} s") from None
    if built.returncode != 0:
        raise ToolMissingError(f"{' '.join(command[1:])} failed:\n{built.stderr.strip()}")
    (program,) = unfinished.iterdir()
    program.rename(place / program.name)
    unfinished.rmdir()


def main(names: list[str]) -> int:
    """Print a line a tool; returns 1 if one is missing."""
    missing = 0
    for name in names or list(TOOLS):
        try:
            print(f"{name}  {tool(name)}")
        except ToolMissingError as error:
            missing = 1
            print(f"{name}  {error}", file=sys.stderr)
    return missing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

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

BUILD_S = 1800.0


@dataclass(frozen=True, slots=True)
class GoTool:
    """A command of a Go module."""

    package: str
    version: str


TOOLS = {
    "ghz": GoTool("github.com/bojand/ghz/cmd/ghz", "v0.121.0"),
    "grpcurl": GoTool("github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3"),
    "helm": GoTool("helm.sh/helm/v3/cmd/helm", "v3.22.0"),
    "kubectl-validate": GoTool("sigs.k8s.io/kubectl-validate", "v0.0.4"),
    "promtool": GoTool("github.com/prometheus/prometheus/cmd/promtool", "v0.307.3"),
    "docker-compose": GoTool("github.com/docker/compose/v2/cmd", "v2.40.3"),
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
            _build(go, wanted, program)
    return program


def _build(go: str, wanted: GoTool, program: Path) -> None:
    place = program.parent
    # Built beside its place and moved, so that an interrupted build leaves nothing that looks whole. As a dependency of
    # a module of our own: `go install` refuses modules that replace or exclude others.
    unfinished = place / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    environment = {**os.environ, "GOFLAGS": "-trimpath -mod=mod", "CGO_ENABLED": "0"}
    for step in (
        ["mod", "init", "soma.dev/tools"],
        ["get", f"{wanted.package}@{wanted.version}"],
        ["build", "-o", "program", wanted.package],
    ):
        command = ["nice", go, *step]
        try:
            done = subprocess.run(
                command, check=False, cwd=unfinished, env=environment, capture_output=True, text=True, timeout=BUILD_S
            )
        except subprocess.TimeoutExpired:
            raise ToolMissingError(f"building {wanted.package} took over {BUILD_S:.0f} s") from None
        if done.returncode != 0:
            raise ToolMissingError(f"{' '.join(command[1:])} failed:\n{done.stderr.strip()}")
    (unfinished / "program").rename(program)
    shutil.rmtree(unfinished)


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

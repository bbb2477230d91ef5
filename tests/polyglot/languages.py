"""What each language needs, how its client is built by its own tools, and what runs its scenario."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "clients"


@dataclass(frozen=True, slots=True)
class Language:
    """A client and how it is built and run."""

    name: str
    directory: Path
    tools: Sequence[tuple[str, str]]
    """Programs, with the Debian packages that bring them."""
    build: Sequence[Sequence[str]]
    """Commands in the client's directory: generate the stubs from the protos, compile, run its own tests."""
    run: Sequence[str]

    def missing(self) -> list[str]:
        """The tools that are not here, with what brings them."""
        return [f"{tool} (Debian's {package})" for tool, package in self.tools if shutil.which(tool) is None]


PYTHON = Language("Python", ROOT, [], [], [sys.executable, "-m", "tests.polyglot.scenario"])
LANGUAGES = [
    Language(
        "Go",
        CLIENTS / "go",
        [("go", "golang-go")],
        [["go", "generate", "./..."], ["go", "vet", "./..."], ["go", "build", "-o", "build/scenario", "./scenario"]],
        ["build/scenario"],
    ),
    Language(
        "TypeScript",
        CLIENTS / "typescript",
        [("node", "nodejs"), ("npm", "npm")],
        [["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["npm", "run", "build"]],
        ["node", "build/src/scenario.js"],
    ),
    Language(
        "Rust",
        CLIENTS / "rust",
        [("cargo", "cargo")],
        [["cargo", "build", "--quiet", "--examples"]],
        ["target/debug/examples/scenario"],
    ),
    Language(
        "Java",
        CLIENTS / "java",
        [("javac", "default-jdk-headless"), ("mvn", "maven")],
        [["mvn", "--batch-mode", "--quiet", "test-compile"]],
        ["java", "-cp", "target/classes:target/test-classes:target/lib/*", "dev.soma.client.Scenario"],
    ),
]

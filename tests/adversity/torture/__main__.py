"""Run the torture: ``python -m tests.adversity.torture --tier ci|night|release [--seed N] [--scale X]``."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from tests.adversity.torture.experiments import EXPERIMENTS, IN_CI, run_all
from tests.adversity.torture.reporting import Run, report
from tests.adversity.torture.tiers import TIERS

_REPORT = Path(__file__).resolve().parents[3] / "docs" / "torture.md"


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every verdict passed, 1 if one did not, 2 for a wrong word in the command line."""
    parser = argparse.ArgumentParser(prog="./dev torture", description="Long runs that try to break what Soma promises")
    parser.add_argument("--tier", choices=sorted(TIERS), default="ci", help="how big everything is (default: ci)")
    parser.add_argument("--seed", type=int, help="what chance is drawn from; the same seed draws the same plan")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count of the tier")
    parser.add_argument(
        "--only", nargs="+", choices=list(EXPERIMENTS), metavar="PART", help=f"some of: {', '.join(EXPERIMENTS)}"
    )
    parser.add_argument("--report", type=Path, help="where the report goes (night and release: docs/torture.md)")
    asked = parser.parse_args(arguments)
    if asked.scale <= 0:
        parser.error("--scale must be more than 0")
    seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed
    run = Run(asked.tier, seed, asked.scale, TIERS[asked.tier].scaled(asked.scale))
    # What is kept beside the code is a run of a big tier, nothing less.
    place: Path | None = asked.report or (_REPORT if asked.tier != "ci" and not asked.only else None)

    def write() -> None:
        # After each experiment, so that a run that is stopped has told what it found until then.
        if place is not None:
            place.write_text(report(run), encoding="utf-8")

    try:
        names = asked.only or (IN_CI if asked.tier == "ci" else list(EXPERIMENTS))
        asyncio.run(run_all(run, names, write))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    print(report(run))
    print(f"{run.passed} passed, {run.failed} failed")
    return 0 if run.failed == 0 and run.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())

"""`./dev demo` shows what it claims, and says so when it does not hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.console import run

pytestmark = [pytest.mark.processes, pytest.mark.slow]


async def test_the_demo_holds_every_claim_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = await run(sys.executable, "-m", "examples.demo", "--output", "json", TMPDIR=str(_open_to_all(tmp_path)))

    assert done.code == 0, done.err + done.out
    claims = done.document["claims"]
    assert [claim["claim"] for claim in claims if not claim["held"]] == []
    assert {answer["tenant"] for answer in done.document["answers"]} == {"atlas", "harbor", "luna"}
    assert all(answer["hits"] for answer in done.document["answers"])
    read_back = [claim["claim"] for claim in claims if "acknowledged memories are there" in claim["claim"]]
    assert len(read_back) == 3
    assert list(tmp_path.glob("soma-demo-*")) == []


async def test_a_demo_whose_answers_are_missing_says_so_and_fails(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    sample.mkdir()
    for tenant in ("atlas", "luna"):
        (sample / f"{tenant}.jsonl").write_text(json.dumps({"text": f"The weather in {tenant} is fine"}) + "\n")

    done = await run(
        sys.executable,
        "-m",
        "soma_client.cli",
        *("demo", "--sample", str(sample), "--output", "json"),
        TMPDIR=str(_open_to_all(tmp_path)),
    )

    assert done.code == 1, done.err + done.out
    failed = {claim["claim"] for claim in done.document["claims"] if not claim["held"]}
    assert 'one of the best 3 says "8 October"' in failed
    assert not {claim for claim in failed if "acknowledged" in claim or "NOT_FOUND" in claim}


def _open_to_all(directory: Path) -> Path:
    """Postgres runs as a user of its own under root and has to pass through."""
    for each in (directory, *directory.parents):
        if each.name.startswith("pytest-"):
            each.chmod(0o755)
    directory.chmod(0o755)
    return directory

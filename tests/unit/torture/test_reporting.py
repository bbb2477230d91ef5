"""A torture run ends with one line, an exit code and a page that lets it be drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversity.torture import __main__ as torture
from tests.adversity.torture import experiments
from tests.adversity.torture.parts import Part
from tests.adversity.torture.reporting import Run
from tests.adversity.torture.tiers import TIERS
from tests.adversity.torture.verdicts import Verdict


async def _good(run: Run, seed: int) -> list[Part]:
    return [Part("good", [Verdict("it holds", True, "0 of 7")], {"seed of the part": str(seed)})]


async def _bad(run: Run, seed: int) -> list[Part]:
    return [Part("bad", [Verdict("it holds", False, "1 of 7: a|b")])]


async def _broken(run: Run, seed: int) -> list[Part]:
    raise RuntimeError("the proxy fell over")


@pytest.fixture(autouse=True)
def _experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"good": _good, "bad": _bad, "broken": _broken})
    monkeypatch.setattr(torture, "EXPERIMENTS", experiments.EXPERIMENTS)


def ran(capsys: pytest.CaptureFixture[str], place: Path, *only: str, seed: int = 7) -> tuple[int, str, str]:
    code = torture.main(["--seed", str(seed), "--report", str(place), "--only", *only])
    return code, capsys.readouterr().out.strip().splitlines()[-1], place.read_text()


def test_what_holds_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, last, page = ran(capsys, tmp_path / "page.md", "good")
    assert (0, "1 passed, 0 failed") == (code, last)
    assert "`./dev torture --tier ci --seed 7`" in page
    assert "| it holds | passed | 0 of 7 |" in page
    assert "| grpcio |" in page


def test_what_does_not_hold_fails_and_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, last, page = ran(capsys, tmp_path / "page.md", "good", "bad")
    assert (1, "1 passed, 1 failed") == (code, last)
    assert r"| it holds | **failed** | 1 of 7: a\|b |" in page


def test_an_experiment_that_breaks_is_a_failure_and_the_next_one_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, last, page = ran(capsys, tmp_path / "page.md", "broken", "good")
    assert (1, "1 passed, 1 failed") == (code, last)
    assert "the proxy fell over" in page


def test_the_same_seed_draws_the_same_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def drawn(seed: int) -> str:
        page = ran(capsys, tmp_path / "page.md", "good", seed=seed)[2]
        return next(line for line in page.splitlines() if "seed of the part" in line)

    assert drawn(7) == drawn(7) != drawn(8)


@pytest.mark.parametrize("words", [["--tier", "weekend"], ["--scale", "0"], ["--only", "nothing"]])
def test_a_wrong_word_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        torture.main(words)
    assert 2 == ended.value.code


def test_a_scale_multiplies_counts_and_leaves_all_as_all() -> None:
    night = TIERS["night"]
    half = night.scaled(0.5)
    assert (50_000, 75, 0, 0) == (half.acknowledged, half.kills, half.crash_points, half.planted)
    assert night.tenants == half.tenants
    assert 1 == night.scaled(0.001).restarts

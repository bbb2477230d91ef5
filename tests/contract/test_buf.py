"""buf's own rules: style, comments, and that nothing released is taken away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.contract.buf import PROTOS, ROOT, run_buf

BASELINE = PROTOS / "baseline.binpb"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(PROTOS, tmp_path / "protos")
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_the_protos_are_clean() -> None:
    linted = run_buf("lint")
    formatted = run_buf("format", "--diff", "--exit-code")

    assert (linted.returncode, linted.stdout) == (0, "")
    assert (formatted.returncode, formatted.stdout) == (0, "")


def test_nothing_in_the_baseline_is_broken() -> None:
    compared = run_buf("breaking", "--against", str(BASELINE))

    assert (compared.returncode, compared.stdout) == (0, "")


def test_a_missing_comment_is_noticed(copy: Path) -> None:
    text = (copy / "protos/soma/memory/v1/watch_service.proto").read_text()
    (copy / "protos/soma/memory/v1/watch_service.proto").write_text(text.replace("  // The server's clock.\n", ""))

    linted = run_buf("lint", cwd=copy)

    assert linted.returncode != 0
    assert "WatchCheckpoint" in linted.stdout or "server_time" in linted.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  int64 revision = 1;\n  // The server's clock.", "  // The server's clock.", "was deleted"),
        ("google.protobuf.Timestamp server_time = 2;", "google.protobuf.Timestamp server_time = 3;", "was deleted"),
        ("google.protobuf.Timestamp server_time = 2;", "google.protobuf.Timestamp now_time = 2;", "changed name"),
    ],
)
def test_a_breaking_change_is_noticed(copy: Path, old: str, new: str, said: str) -> None:
    replace(copy / "protos/soma/memory/v1/watch_service.proto", old, new)

    compared = run_buf("breaking", "--against", str(BASELINE), cwd=copy)

    assert compared.returncode != 0
    assert said in compared.stdout

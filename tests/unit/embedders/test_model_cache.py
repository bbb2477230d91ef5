"""Models on disk: built once, whole or not at all, also when several processes want one at the same moment."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from soma_contract.embedders.model_cache import cached_model, default_cache_dir


def build(directory: Path) -> None:
    (directory / "model").write_bytes(b"weights")


def must_not_build(directory: Path) -> None:
    pytest.fail(f"built again in {directory}")


def test_a_built_model_is_used_again(tmp_path: Path) -> None:
    built = cached_model(tmp_path, "m-1", build)
    assert cached_model(tmp_path, "m-1", must_not_build) == built
    assert (built / "model").read_bytes() == b"weights"


def test_another_name_is_another_model(tmp_path: Path) -> None:
    assert cached_model(tmp_path, "m-1", build) != cached_model(tmp_path, "m-2", build)


@pytest.mark.parametrize("damage", [b"", b"weight", b"weighty"])
def test_a_damaged_model_is_built_again(tmp_path: Path, damage: bytes) -> None:
    built = cached_model(tmp_path, "m", build)
    (built / "model").write_bytes(damage)
    assert (cached_model(tmp_path, "m", build) / "model").read_bytes() == b"weights"


def test_a_model_without_its_manifest_is_built_again(tmp_path: Path) -> None:
    built = cached_model(tmp_path, "m", build)
    (built / "manifest.json").unlink()
    assert (cached_model(tmp_path, "m", build) / "model").read_bytes() == b"weights"


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing(directory: Path) -> None:
        build(directory)
        raise OSError(28, "no space left")

    with pytest.raises(OSError, match="no space left"):
        cached_model(tmp_path, "m", failing)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["m.lock"]
    assert (cached_model(tmp_path, "m", build) / "model").read_bytes() == b"weights"


def test_what_a_killed_builder_left_is_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / "models" / "m.building-x1"
    leftover.mkdir(parents=True)
    (leftover / "model").write_bytes(b"half")
    cached_model(tmp_path, "m", build)
    assert not leftover.exists()


@pytest.mark.processes
def test_of_processes_that_start_together_one_builds_and_all_use_it(tmp_path: Path) -> None:
    # Each builder holds its build open until its stdin closes, so the builds would overlap if they could.
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from soma_contract.embedders.model_cache import cached_model

        def build(directory):
            (directory / "model").write_bytes(b"weights")
            print("building", flush=True)
            sys.stdin.read()

        print("ready", flush=True)
        print("has", (cached_model(Path(sys.argv[1]), "m", build) / "model").read_text(), flush=True)
        """
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        # Through the same stream: `communicate` would skip what the line before was read ahead with.
        outputs = [process.stdout.read() for process in processes if process.stdout is not None]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    assert sorted(output.splitlines() for output in outputs) == [
        ["building", "has weights"],
        ["has weights"],
        ["has weights"],
    ]


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOMA_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache_dir() == tmp_path / "a"
    monkeypatch.delenv("SOMA_CACHE")
    assert default_cache_dir() == tmp_path / "b" / "soma"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "soma"

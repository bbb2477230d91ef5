"""The check of the locks, and that it would notice."""

from __future__ import annotations

from pathlib import Path

from packaging.utils import canonicalize_name

from scripts import check_locks

LOCK = "alpha==1.2 \\\n    --hash=sha256:00\nbeta==3.0 ; python_full_version < '3.12' \\\n    --hash=sha256:11\n"


def written(directory: Path, text: str) -> Path:
    path = directory / "some.lock"
    path.write_text(text)
    return path


def test_the_locks_of_this_tree_are_in_order() -> None:
    assert [] == check_locks.check()


def test_a_pin_that_answers_the_request_is_no_fault(tmp_path: Path) -> None:
    locked = check_locks.read_lock(written(tmp_path, LOCK))
    assert [] == check_locks.missing(["Alpha>=1", "beta<4"], locked, "some.lock")


def test_a_missing_and_an_outdated_pin_are_named(tmp_path: Path) -> None:
    locked = check_locks.read_lock(written(tmp_path, LOCK))
    faults = check_locks.missing(["alpha>=2", "gamma"], locked, "some.lock")
    assert [
        "some.lock pins alpha==1.2, but 'alpha>=2' is asked for",
        "some.lock has no gamma, which is asked for as 'gamma'",
    ] == faults


def test_an_entry_without_a_hash_and_the_name_of_a_host_are_faults(tmp_path: Path) -> None:
    text = LOCK + "gamma==1\n--index-url https://index.example/simple\n"
    assert [
        "some.lock names a host: --index-url https://index.example/simple",
        "some.lock has an entry without a pin or a hash: gamma==1",
        "some.lock has an entry without a pin or a hash: --index-url https://index.example/simple",
    ] == check_locks.malformed(written(tmp_path, text))


def test_a_requirement_that_the_lock_leaves_out_is_named() -> None:
    locked = check_locks.read_lock(check_locks.ROOT / "requirements" / "dev.lock")
    del locked[canonicalize_name("pluggy")]
    faults = check_locks.incomplete(locked, set(), "dev.lock")
    assert "dev.lock has pytest but not pluggy, which it requires" in faults

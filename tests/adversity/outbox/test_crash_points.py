"""The brain dies exactly at an fsync, or the disk fails there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversity.outbox.conftest import BrainProcess, Ledger

POINTS = (1, 2, 3, 7, 25)
MANY_POINTS = (*range(1, 31), 50, 80, 120, 200, 300, 400, 500, 600, 700, 800)
FSYNCS = "fsync,fdatasync"


def crash_at(points: tuple[int, ...], strace: str, directory: Path, ledger: Ledger) -> int:
    """Let a brain die at each of these fsyncs, one life after the other; return how many it died at."""
    died = 0
    for point in points:
        inject = ("-f", "-qq", "-o", "/dev/null", "-e", f"trace={FSYNCS}")
        under = (strace, *inject, "-e", f"inject={FSYNCS}:signal=SIGKILL:when={point}")
        brain = BrainProcess(directory, ledger, under=under)
        brain.join()
        died += brain.process.returncode != 0
    last = BrainProcess(directory, ledger)
    last.must_have_started()
    last.kill()
    return died


@pytest.mark.processes
def test_dying_at_an_fsync_loses_nothing_acknowledged(strace: str, tmp_path: Path, ledger: Ledger) -> None:
    assert crash_at(POINTS, strace, tmp_path / "brain", ledger) == len(POINTS)
    assert ledger.lost == []
    assert ledger.acknowledged > 0


@pytest.mark.processes
@pytest.mark.slow
def test_dying_at_forty_fsyncs_loses_nothing_acknowledged(strace: str, tmp_path: Path, ledger: Ledger) -> None:
    assert crash_at(MANY_POINTS, strace, tmp_path / "brain", ledger) == len(MANY_POINTS)
    assert ledger.lost == []


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (f"{FSYNCS}:error=EIO:when=40+", "COMPONENT_UNAVAILABLE"),
        ("pwrite64:error=ENOSPC:when=400+", "OUTBOX_FULL"),
        ("pwrite64:error=EIO:when=400+", "COMPONENT_UNAVAILABLE"),
    ],
    ids=["a failed fsync", "a full disk", "a failed write"],
)
def test_a_failing_disk_stops_acknowledgements_and_loses_nothing(
    fault: str, reason: str, strace: str, tmp_path: Path, ledger: Ledger
) -> None:
    call = fault.partition(":")[0]
    under = (strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}")
    brain = BrainProcess(tmp_path / "brain", ledger, under=under)
    brain.wait_for_refusals(30)
    acknowledged = ledger.acknowledged
    brain.wait_for_refusals(60)
    brain.kill()
    assert acknowledged > 0
    assert ledger.acknowledged == acknowledged
    assert set(brain.refusals) == {reason}
    again = BrainProcess(tmp_path / "brain", ledger)
    again.must_have_started()
    again.kill()
    assert ledger.lost == []

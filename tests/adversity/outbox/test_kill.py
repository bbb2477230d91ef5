"""kill -9 of a brain in the middle of its work."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.adversity.outbox.conftest import BrainProcess, Ledger


@pytest.mark.processes
def test_kills_at_random_moments_lose_nothing_acknowledged(tmp_path: Path, ledger: Ledger) -> None:
    rng = Random(4)
    for _ in range(8):
        brain = BrainProcess(tmp_path / "brain", ledger)
        brain.must_have_started()
        brain.wait_for_acknowledgements(rng.randrange(1, 1_500))
        brain.kill()
    last = BrainProcess(tmp_path / "brain", ledger)
    last.must_have_started()
    last.kill()
    assert ledger.lost == []
    assert ledger.acknowledged > 1_000


@pytest.mark.processes
def test_a_second_brain_cannot_take_the_directory_of_a_living_one(tmp_path: Path, ledger: Ledger) -> None:
    brain = BrainProcess(tmp_path / "brain", ledger)
    brain.must_have_started()
    second = BrainProcess(tmp_path / "brain", Ledger())
    complaints = second.join()
    brain.kill()
    assert second.process.returncode != 0
    assert "held by another brain" in complaints

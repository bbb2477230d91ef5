"""The power goes while the brain writes: everything it acknowledged is there afterwards."""

from __future__ import annotations

from random import Random

import pytest

from tests.adversity.outbox.conftest import BrainProcess, Ledger, LossyMount

CUTS, MANY_CUTS = 6, 60


def cut_again_and_again(mount: LossyMount, ledger: Ledger, cuts: int, *flags: str, seed: int = 1) -> None:
    """Run a brain, cut the power at a random moment, start it on what is left; compare each time."""
    rng = Random(seed)
    directory = mount.place / "brain"
    for number in range(cuts):
        brain = BrainProcess(directory, ledger, *flags)
        brain.must_have_started()
        brain.wait_for_acknowledgements(rng.randrange(20, 400))
        # From losing all that was not fsynced to keeping most of it, out of order.
        mount.cut(seed=number, share=rng.choice((0.0, 0.5, 0.9)))
        brain.kill()
        mount.on()
    brain = BrainProcess(directory, ledger, *flags)
    brain.must_have_started()
    brain.kill()


@pytest.mark.processes
def test_no_acknowledged_write_or_observation_is_lost_in_a_power_cut(lossy_mount: LossyMount, ledger: Ledger) -> None:
    cut_again_and_again(lossy_mount, ledger, CUTS)
    assert ledger.acknowledged > 20 * CUTS
    assert ledger.lost == []


@pytest.mark.processes
@pytest.mark.slow
def test_nothing_is_lost_in_sixty_power_cuts(lossy_mount: LossyMount, ledger: Ledger) -> None:
    cut_again_and_again(lossy_mount, ledger, MANY_CUTS, seed=2)
    assert ledger.acknowledged > 20 * MANY_CUTS
    assert ledger.lost == []


@pytest.mark.processes
def test_a_brain_that_does_not_wait_for_the_disk_is_found_out(lossy_mount: LossyMount, ledger: Ledger) -> None:
    """The same cuts with synchronous=NORMAL: if nothing were lost, the tests above would show nothing."""
    directory = lossy_mount.place / "brain"
    for number in range(10):
        brain = BrainProcess(directory, ledger, "--unsafe")
        brain.must_have_started()
        brain.wait_for_acknowledgements(200)
        lossy_mount.cut(seed=number, share=0.0)
        brain.kill()
        lossy_mount.on()
        if ledger.lost:
            break
    assert ledger.lost

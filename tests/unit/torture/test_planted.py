"""Planted bugs can still be planted, and the tests that catch them are still there."""

from __future__ import annotations

import pytest

from tests.adversity.torture.bugs import BUGS, NO_CHECK_OF_HITS, Bug
from tests.adversity.torture.planted import ROOT


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_the_code_it_is_planted_in(bug: Bug) -> None:
    assert [1] * len(bug.edits) == [(ROOT / edit.path).read_text().count(edit.before) for edit in bug.edits]
    path, _, name = bug.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_the_check_of_hits_can_still_be_taken_out() -> None:
    assert [(ROOT / edit.path).read_text().count(edit.before) for edit in NO_CHECK_OF_HITS] == [1, 1]


def test_there_are_at_least_twelve_and_each_is_another() -> None:
    assert len(BUGS) >= 12
    assert len(BUGS) == len({bug.name for bug in BUGS})

"""A server's heap is searched rarely, and searched all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rpckit.heap import YOUNG, settle_heap


class Knot:
    """Something that holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def settled() -> Iterator[None]:
    """This process as a server is once it is up; as it was afterwards."""
    before = gc.get_threshold()
    settle_heap()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_is_there_at_the_start_is_not_looked_through_again(settled: None) -> None:
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 10_000


def test_knots_that_come_later_are_undone(settled: None) -> None:
    lost = weakref.ref(Knot())
    kept = [Knot() for _ in range(3 * YOUNG)]
    assert len(kept) == 3 * YOUNG
    assert lost() is None

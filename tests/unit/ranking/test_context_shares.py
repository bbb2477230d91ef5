"""What a turn gets from its conversation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_server.domain.context_shares import NO_SESSION, SESSION_BEST, neighbour_scores, session_scores

_TURNS = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 6), st.floats(0, 1, width=32)), min_size=0, max_size=20)


def _arrays(turns: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sessions = np.array([turn[0] for turn in turns], dtype=np.int64)
    sequences = np.array([turn[1] for turn in turns], dtype=np.int64)
    return np.array([turn[2] for turn in turns], dtype=np.float32), sessions, sequences


@given(_TURNS)
def test_neighbours_are_the_turns_one_before_and_one_after(turns: list[tuple[int, int, float]]) -> None:
    previous, following = neighbour_scores(*_arrays(turns))

    def at(session: int, sequence: int) -> float:
        here = [score for other, place, score in turns if (other, place) == (session, sequence)]
        return max(here, default=0.0) if session != NO_SESSION else 0.0

    assert previous.tolist() == pytest.approx([at(session, place - 1) for session, place, _ in turns])
    assert following.tolist() == pytest.approx([at(session, place + 1) for session, place, _ in turns])


@given(_TURNS)
def test_a_session_scores_as_its_three_best(turns: list[tuple[int, int, float]]) -> None:
    scores, sessions, _ = _arrays(turns)

    def share(session: int) -> float:
        mine = sorted((score for other, _, score in turns if other == session), reverse=True)
        return 0.0 if session == NO_SESSION else sum(mine[:SESSION_BEST]) / SESSION_BEST

    assert session_scores(scores, sessions).tolist() == pytest.approx([share(turn[0]) for turn in turns], abs=1e-6)


def test_the_end_of_one_session_is_no_neighbour_of_the_next() -> None:
    previous, following = neighbour_scores(*_arrays([(0, 1, 0.5), (1, 2, 0.25)]))
    assert (previous.tolist(), following.tolist()) == ([0.0, 0.0], [0.0, 0.0])


def test_a_gap_in_the_sequence_is_no_neighbourhood() -> None:
    previous, _ = neighbour_scores(*_arrays([(0, 1, 0.5), (0, 3, 0.25)]))
    assert previous.tolist() == [0.0, 0.0]

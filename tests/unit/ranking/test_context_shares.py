"""What a turn gets from its conversation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_server.domain.context_shares import (
    LONG_TOKENS,
    NO_SESSION,
    SESSION_BEST,
    at_positions,
    brevity,
    neighbour_positions,
    session_scores,
)

_TURNS = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 6), st.floats(0, 1, width=32)), min_size=0, max_size=20)


def _arrays(turns: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sessions = np.array([turn[0] for turn in turns], dtype=np.int64)
    sequences = np.array([turn[1] for turn in turns], dtype=np.int64)
    return np.array([turn[2] for turn in turns], dtype=np.float32), sessions, sequences


def _neighbour_scores(turns: list[tuple[int, int, float]]) -> tuple[list[float], list[float]]:
    scores, sessions, sequences = _arrays(turns)
    previous, following = neighbour_positions(sessions, sequences, np.arange(len(turns)))
    return at_positions(scores, previous).tolist(), at_positions(scores, following).tolist()


@given(_TURNS)
def test_neighbours_are_the_turns_one_before_and_one_after(turns: list[tuple[int, int, float]]) -> None:
    previous, following = _neighbour_scores(turns)

    def at(session: int, sequence: int) -> float:
        here = [score for other, place, score in turns if (other, place) == (session, sequence)]
        return here[0] if here and session != NO_SESSION else 0.0

    assert previous == pytest.approx([at(session, place - 1) for session, place, _ in turns])
    assert following == pytest.approx([at(session, place + 1) for session, place, _ in turns])


@given(_TURNS)
def test_a_session_scores_as_its_three_best(turns: list[tuple[int, int, float]]) -> None:
    scores, sessions, _ = _arrays(turns)

    def share(session: int) -> float:
        mine = sorted((score for other, _, score in turns if other == session), reverse=True)
        return 0.0 if session == NO_SESSION else sum(mine[:SESSION_BEST]) / SESSION_BEST

    assert session_scores(scores, sessions).tolist() == pytest.approx([share(turn[0]) for turn in turns], abs=1e-6)


def test_the_end_of_one_session_is_no_neighbour_of_the_next() -> None:
    assert _neighbour_scores([(0, 1, 0.5), (1, 2, 0.25)]) == ([0.0, 0.0], [0.0, 0.0])


def test_the_shorter_a_turn_the_more_it_leans_on_the_one_before() -> None:
    assert brevity(np.array([0, 8, LONG_TOKENS, 64])).tolist() == [1.0, 0.75, 0.0, 0.0]


def test_a_gap_in_the_sequence_is_no_neighbourhood() -> None:
    assert _neighbour_scores([(0, 1, 0.5), (0, 3, 0.25)]) == ([0.0, 0.0], [0.0, 0.0])


def test_of_two_turns_in_one_place_the_first_by_id_is_the_neighbour() -> None:
    sessions, sequences = np.zeros(3, np.int64), np.array([2, 1, 1], np.int64)
    previous, _ = neighbour_positions(sessions, sequences, np.array([0, 2, 1]))
    assert previous.tolist() == [2, -1, -1]

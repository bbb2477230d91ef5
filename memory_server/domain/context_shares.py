"""Shares of score that a turn gets from its conversation.

An answer often does not repeat what the question before it named.  So a turn gets a share of its direct neighbours'
scores, and of the score of its session as a whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory_server.domain.late_interaction import ABSENT

SESSION_BEST = 3
NO_SESSION = -1
LONG_TOKENS = 32
"""Content tokens from which on a turn speaks for itself."""


def neighbour_positions(
    sessions: NDArray[np.int64], sequences: NDArray[np.int64], by_id: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the previous and of the next turn of each member's session, (n,) each; ABSENT for none.

    `sessions` (n,) are codes, NO_SESSION for none.  The previous turn is the one with the sequence one lower; of
    several with the same place the first in `by_id` (n,), positions in the order of ids, counts.
    """
    previous = np.full(len(by_id), ABSENT, dtype=np.int64)
    following = np.full(len(by_id), ABSENT, dtype=np.int64)
    if len(by_id) < 2:
        return previous, following
    order = by_id[np.lexsort((sequences[by_id], sessions[by_id]))]
    session, sequence = sessions[order], sequences[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (session[1:] != session[:-1]) | (sequence[1:] != sequence[:-1])
    starts = np.flatnonzero(first)
    holder, place_session, place_sequence = order[starts], session[starts], sequence[starts]
    joined = (
        (place_session[1:] == place_session[:-1])
        & (place_session[1:] != NO_SESSION)
        & (place_sequence[:-1] + 1 == place_sequence[1:])
    )
    place_previous = np.full(len(starts), ABSENT, dtype=np.int64)
    place_following = np.full(len(starts), ABSENT, dtype=np.int64)
    place_previous[1:][joined] = holder[:-1][joined]
    place_following[:-1][joined] = holder[1:][joined]
    place = np.cumsum(first) - 1
    previous[order] = place_previous[place]
    following[order] = place_following[place]
    return previous, following


def at_positions(scores: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the scores at `positions` (n,), 0 where ABSENT."""
    return np.where(positions == ABSENT, np.float32(0.0), scores[positions]) if len(scores) else scores


def session_scores(scores: NDArray[np.float32], sessions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean of the three best scores of each member's session in the pool, (n,); 0 without a session.

    A session with fewer members in the pool counts the missing ones as 0, so that one good turn does not make a
    good session.
    """
    shares = np.zeros(len(scores), dtype=np.float32)
    if len(scores) == 0:
        return shares
    order = np.lexsort((-scores, sessions))
    session = sessions[order]
    starts = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
    group = np.cumsum(np.r_[False, session[1:] != session[:-1]])
    rank = np.arange(len(order)) - starts[group]
    counted = np.where(rank < SESSION_BEST, scores[order], np.float32(0.0))
    mean = np.add.reduceat(counted, starts) / np.float32(SESSION_BEST)
    shares[order] = np.where(session == NO_SESSION, np.float32(0.0), mean[group])
    return shares


def brevity(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return how much turns lean on the one before, by their content tokens: 1 for none, 0 from 32 on, shape (n,).

    A short answer leaves out what the question named; a long one repeats it and needs no credit for it.
    """
    return (1.0 - np.minimum(tokens, LONG_TOKENS) / LONG_TOKENS).astype(np.float32)

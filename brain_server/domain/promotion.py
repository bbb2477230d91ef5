"""Promotion: what stays salient tick after tick belongs into long-term memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brain_server.domain.salience import Floats, WorkingRules

Streaks = NDArray[np.int32]

HELD = "salience held for {ticks} ticks"
ASKED = "asked for"


def next_streaks(streaks: Streaks, salience: Floats, rules: WorkingRules) -> Streaks:
    """Return the ticks in a row that each item has been salient enough, this one included."""
    return np.where(salience >= rules.promotion, streaks + 1, 0).astype(np.int32)


def earned(streaks: Streaks, rules: WorkingRules) -> NDArray[np.intp]:
    """Return the slots whose items have been salient for long enough."""
    return np.flatnonzero(streaks >= rules.promotion_ticks)

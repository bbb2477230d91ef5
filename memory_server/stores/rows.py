"""What every index does with rows before it writes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memory_server.ports import IndexRow, RowsRefusedError

NORM_TOLERANCE = 1e-2
"""How far a vector's length may be from 1; float16 round trips stay far below."""


def accepted_rows(rows: Sequence[IndexRow], dimension: int) -> list[IndexRow]:
    """Return the rows with one row a key, the newest.

    Two rows of one key in a batch become two rows in Milvus; a NaN swallowed there poisons later searches.
    Raises RowsRefusedError for a vector of another shape, with a component that is not finite, or whose
    norm is not 1.
    """
    newest: dict[tuple[str, str], IndexRow] = {}
    for row in rows:
        key = row.tenant.name, row.memory.memory_id
        if key not in newest or newest[key].version <= row.version:
            newest[key] = row
    reasons = {}
    for key, row in newest.items():
        if row.dense.shape != (dimension,):
            reasons[key] = f"the vector's shape is {row.dense.shape}, the collection's is ({dimension},)"
        elif not np.isfinite(row.dense).all():
            reasons[key] = "the vector has a component that is not finite"
        elif abs(float(np.linalg.norm(row.dense)) - 1.0) > NORM_TOLERANCE:
            reasons[key] = "the vector's norm is not 1"
    if reasons:
        raise RowsRefusedError(reasons)
    return list(newest.values())

"""How much of a page fits into one answer."""

from __future__ import annotations

from collections.abc import Sequence

MIB = 1024 * 1024
_FRAMING = 16
"""Bytes a repeated message may cost beyond its own size."""


def fitting(sizes: Sequence[int], budget: int = 3 * MIB) -> int:
    """How many of the first messages fit together, given their sizes in bytes; at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size + _FRAMING
        if total > budget and count:
            return count
    return len(sizes)

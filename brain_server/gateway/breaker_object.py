"""pybreaker without the Redis client that it imports where there is one.

It keeps its state in memory here; importing the client took a fifth of the time of all of a brain's imports.
"""

from __future__ import annotations

import sys

_REDIS = sys.modules.get("redis")
sys.modules["redis"] = None  # type: ignore[assignment]
try:
    import pybreaker
finally:
    if _REDIS is None:
        del sys.modules["redis"]
    else:
        sys.modules["redis"] = _REDIS

__all__ = ["pybreaker"]

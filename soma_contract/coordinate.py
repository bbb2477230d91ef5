"""Coordinates: a deterministic address in [-1, 1]^3 derived from a memory's key."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence

from soma_contract.memory import Coordinate

UNIVERSE = "real"
_SPAN = 2**32 - 1


def coordinate_of(name: str, universe: str = UNIVERSE) -> Coordinate:
    """Derive the coordinate of a key, or of a memory id where there is no key.

    BLAKE2b-96 of ``universe::name`` is read as three big-endian uint32 u, each mapped to
    2u / (2^32 - 1) - 1.  An address, never a meaning.
    """
    digest = hashlib.blake2b(f"{universe}::{name}".encode(), digest_size=12).digest()
    x, y, z = struct.unpack(">III", digest)
    return (2 * x / _SPAN - 1, 2 * y / _SPAN - 1, 2 * z / _SPAN - 1)


def parse_coordinate(value: str | Sequence[float]) -> Coordinate:
    """Read a coordinate given as a sequence or as text such as ``"0.1, -0.2, 0.3"``.

    Raises ValueError, naming what is wrong, unless it is exactly three finite floats in [-1, 1].
    """
    parts = value.strip("[]() ").split(",") if isinstance(value, str) else list(value)
    if len(parts) != 3:
        raise ValueError(f"a coordinate has exactly 3 components, this has {len(parts)}")
    try:
        x, y, z = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError("a coordinate consists of three numbers") from None
    for component in (x, y, z):
        if not math.isfinite(component) or not -1.0 <= component <= 1.0:
            raise ValueError("a coordinate's components are finite and lie in [-1, 1]")
    # Negative zero and zero are the same place and must be the same address.
    return (x + 0.0, y + 0.0, z + 0.0)

"""How big each tier is; ``--scale`` makes all of it but the number of tenants smaller or bigger."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Tier:
    """The sizes of all experiments."""

    acknowledged: int
    kills: int
    tenants: int
    crash_points: int
    """Named places to die at, drawn by the seed; 0 is all of them."""
    hits: int
    """Different passings of each place to die at."""
    attempts: int
    """Tries to reach another tenant's memories."""
    cancelled: int
    black_holed: int
    """Calls into each store that answers nothing."""
    restarts: int
    """Timed deaths of each process."""
    recalls: int
    """Recalls of writes just acknowledged, while the indexer rests."""
    index_rows: int
    """Rows to corrupt a tenth of, to rebuild and to re-embed."""
    planted: int
    """Planted bugs, drawn by the seed; 0 is all of them."""
    minutes: float
    """How long it may take."""

    def scaled(self, by: float) -> Tier:
        """Return the tier with its counts multiplied, none below a handful; all stays all."""
        counts = {
            field.name: max(least, round(getattr(self, field.name) * by))
            for field in fields(self)
            if (least := _LEAST.get(field.name)) is not None and getattr(self, field.name)
        }
        return replace(self, **counts) if by != 1 else self


_LEAST = {
    "acknowledged": 50,
    "kills": 2,
    "crash_points": 2,
    "hits": 1,
    "attempts": 300,
    "cancelled": 50,
    "black_holed": 4,
    "restarts": 1,
    "recalls": 20,
    "index_rows": 200,
    "planted": 1,
}

TIERS = {
    "ci": Tier(
        acknowledged=10_000,
        kills=20,
        tenants=20,
        crash_points=6,
        hits=1,
        attempts=20_000,
        cancelled=1_000,
        black_holed=10,
        restarts=1,
        recalls=200,
        index_rows=2_000,
        planted=3,
        minutes=6,
    ),
    "night": Tier(
        acknowledged=100_000,
        kills=150,
        tenants=100,
        crash_points=0,
        hits=3,
        attempts=100_000,
        cancelled=20_000,
        black_holed=50,
        restarts=5,
        recalls=5_000,
        index_rows=20_000,
        planted=0,
        minutes=60,
    ),
    "release": Tier(
        acknowledged=1_000_000,
        kills=4_000,
        tenants=100,
        crash_points=0,
        hits=25,
        attempts=1_000_000,
        cancelled=100_000,
        black_holed=500,
        restarts=100,
        recalls=50_000,
        index_rows=100_000,
        planted=0,
        minutes=24 * 60,
    ),
}

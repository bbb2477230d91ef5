"""Virtual clocks and named tenants for the brain's unit tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from soma_contract.tenant import Tenant, admin_tenant


class ManualClock:
    """Time that moves only when told; the wall clock may be set to anything meanwhile."""

    def __init__(self) -> None:
        self.at_s = 1_000.0
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)
        self.numbers = count(1)
        """For ids that no restart repeats."""

    def monotonic(self) -> float:
        return self.at_s

    def now(self) -> datetime:
        return self.wall

    def advance(self, seconds: float) -> None:
        self.at_s += seconds
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def tenant(name: str) -> Tenant:
    return admin_tenant(name, reason="tests")

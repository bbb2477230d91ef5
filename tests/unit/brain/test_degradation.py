"""How long long-term memory has been away, and when that becomes an alert."""

from __future__ import annotations

import pytest

from brain_server.core.degradation import ALERT_S, Degradation
from brain_server.gateway.breaker import Breakers
from brain_server.gateway.operations import BreakerOperations
from tests.unit.brain.conftest import ManualClock


class Reported:
    def __init__(self) -> None:
        self.last: tuple[float, bool] = (-1.0, False)

    def degraded(self, seconds: float, *, alert: bool) -> None:
        self.last = (seconds, alert)


def test_an_outage_of_five_minutes_raises_the_alert_once_and_its_end_takes_it_back(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    breakers, reported = Breakers("memory", clock=clock), Reported()
    degradation = Degradation(BreakerOperations(breakers), reported, clock)
    assert 0.0 == degradation.look()
    assert (0.0, False) == reported.last
    for _ in range(2):
        breakers.health_probed(healthy=False)
    degradation.look()
    clock.advance(ALERT_S - 1)
    degradation.look()
    assert (ALERT_S - 1, False) == reported.last
    for _ in range(3):
        clock.advance(1)
        degradation.look()
        assert (True, degradation.look()) == (reported.last[1], reported.last[0])
    assert 1 == sum(record.levelname == "ERROR" for record in caplog.records)
    breakers.health_probed(healthy=True)
    degradation.look()
    assert breakers.state.value != "closed", "a healthy probe only lets calls try: away is until they succeed"
    assert reported.last[1]
    breakers.reset()
    degradation.look()
    assert (0.0, False) == reported.last

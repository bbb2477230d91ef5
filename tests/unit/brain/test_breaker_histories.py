"""Ten thousand random histories in virtual time, and proof that the oracle sees a breaker that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from brain_server.domain import breaker_board
from brain_server.domain.breaker import Breaker, BreakerState, Outcome, Permit
from brain_server.domain.breaker_board import BoardListener, BreakerBoard
from brain_server.domain.evidence import OwnEvidence
from tests.unit.brain.breaker_histories import RULES, RuleBrokenError, play, sound_board

HISTORIES = 10_000


def test_no_history_of_calls_makes_the_breaker_break_its_rules() -> None:
    reached = set()
    for seed in range(HISTORIES):
        oracle = play(seed, sound_board, calls=14)
        reached.add(oracle.shared.state)
        reached.update(shadow.state for shadow in oracle.tenants.values())
    assert reached == set(BreakerState)


class CountsCancelled(Breaker):
    def settle(self, permit: Permit, outcome: Outcome, now: float) -> None:
        super().settle(permit, Outcome.FAILED if outcome is Outcome.IGNORED else outcome, now)


class AdmitsAllWhileHalfOpen(Breaker):
    def admits(self, now: float) -> bool:
        return self.state is BreakerState.HALF_OPEN or super().admits(now)


class BelievesOldCalls(Breaker):
    def settle(self, permit: Permit, outcome: Outcome, now: float) -> None:
        super().settle(replace(permit, generation=self.generation, probe=permit.probe), outcome, now)


class KeepsPermitsOfCancelledProbes(Breaker):
    def settle(self, permit: Permit, outcome: Outcome, now: float) -> None:
        if outcome is not Outcome.IGNORED:
            super().settle(permit, outcome, now)


class NeverWaitsLonger(Breaker):
    def _move(self, new: BreakerState, now: float) -> None:
        self._opened = 0
        super()._move(new, now)


class CountsOnlyRows(OwnEvidence):
    def add(self, tenant: str, outcome: Outcome, now: float) -> bool:
        self._row = self._row + 1 if outcome is Outcome.FAILED else 0
        return self._row >= self._rules.consecutive


class ForgetsNothing(OwnEvidence):
    def add(self, tenant: str, outcome: Outcome, now: float) -> bool:
        return super().add(tenant, outcome, 0.0)


def one_tenant_is_enough(rng: Random, listener: BoardListener) -> BreakerBoard:
    return BreakerBoard(RULES, rng, listener, shared_rules=replace(RULES, tenants=1))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Breaker", CountsCancelled),
        ("Breaker", AdmitsAllWhileHalfOpen),
        ("Breaker", BelievesOldCalls),
        ("Breaker", KeepsPermitsOfCancelledProbes),
        ("Breaker", NeverWaitsLonger),
        ("OwnEvidence", CountsOnlyRows),
        ("OwnEvidence", ForgetsNothing),
        ("", one_tenant_is_enough),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_oracle_convicts_a_faulty_breaker(
    name: str, fault: Callable[[Random, BoardListener], BreakerBoard], monkeypatch: pytest.MonkeyPatch
) -> None:
    board_of = sound_board if name else fault
    if name:
        monkeypatch.setattr(breaker_board, name, fault)

    def play_many() -> None:
        for seed in range(400):
            play(seed, board_of)

    with pytest.raises(RuleBrokenError):
        play_many()

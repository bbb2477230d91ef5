"""The cache's circuit: one try a pause while Redis is away."""

from __future__ import annotations

from memory_server.stores.redis.circuit import Circuit


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_calls_pass_until_one_fails() -> None:
    circuit = Circuit(1.0, Clock())
    assert [circuit.admits() for _ in range(3)] == [True, True, True]
    circuit.failed()
    assert circuit.is_open
    assert not circuit.admits()


def test_after_the_pause_one_asker_tries_and_the_others_go_on_missing() -> None:
    clock = Clock()
    circuit = Circuit(1.0, clock)
    circuit.failed()
    clock.now_s += 0.999
    assert not circuit.admits()
    clock.now_s += 0.001
    assert [circuit.admits() for _ in range(3)] == [True, False, False]
    # The one that tried was cancelled and told nobody: after another pause somebody tries again.
    clock.now_s += 1.0
    assert [circuit.admits() for _ in range(2)] == [True, False]
    circuit.succeeded()
    assert [circuit.admits() for _ in range(2)] == [True, True]

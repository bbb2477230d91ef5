"""The checker of histories finds every planted anomaly and accuses no good history."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from tests.adversity.torture.linearizability import NEVER, Anomaly, Read, Write, anomalies


def calls(found: list[Anomaly]) -> list[Write | Read]:
    return [anomaly.call for anomaly in found]


ONE, TWO, THREE = Write(1, 0, 1), Write(2, 2, 3), Write(3, 4, 5)


@pytest.mark.parametrize(
    "reads",
    [
        [Read(1, 1.5, 1.6), Read(2, 3.5, 3.6)],
        [Read(1, 2.5, 2.6), Read(2, 2.7, 2.8)],
        [Read(1, 2.2, 6.0), Read(3, 4.1, 4.2)],
        [Read(None, 0.0, 0.5), Read(1, 0.2, 0.4)],
        [Read(1, 0.2, 0.3), Read(1, 1.5, 2.5)],
    ],
)
def test_a_history_that_could_have_happened_has_no_anomaly(reads: list[Read]) -> None:
    assert [] == anomalies([THREE, ONE, TWO], reads)


def test_a_stale_read_is_found() -> None:
    assert 1 == len(anomalies([ONE, TWO], [Read(1, 3.1, 3.9)]))


def test_a_read_from_the_future_is_found() -> None:
    assert 1 == len(anomalies([ONE, TWO], [Read(2, 1.2, 1.8)]))


def test_two_reads_that_saw_the_order_turned_round_are_found() -> None:
    long = Write(2, 0.5, 10.0)
    found = anomalies([ONE, long], [Read(2, 2.0, 2.1), Read(1, 3.0, 3.1)])
    assert 1 == len(found)


def test_writes_ordered_against_real_time_are_found() -> None:
    assert 1 == len(anomalies([Write(1, 5, 6), Write(2, 0, 1)], []))


def test_a_lost_update_shows_as_a_read_of_the_one_before() -> None:
    assert 1 == len(anomalies([ONE, TWO, THREE], [Read(2, 6.0, 6.1)]))


def test_a_value_nobody_wrote_is_found() -> None:
    phantom = Read(9, 1.0, 2.0)
    assert [phantom] == calls(anomalies([ONE], [phantom]))


def test_a_write_without_an_answer_may_take_effect_late() -> None:
    assert [] == anomalies([ONE, Write(2, 2, NEVER)], [Read(1, 50, 51), Read(2, 60, 61)])


def test_nothing_is_seen_before_the_first_write_and_after_a_deletion() -> None:
    gone = Write(2, 2, 3, is_deletion=True)
    again = Write(3, 6, 7)
    assert [] == anomalies([ONE, gone, again], [Read(None, 0.1, 0.2), Read(None, 3.5, 4.0), Read(3, 8, 9)])


@pytest.mark.parametrize(
    "wrong", [Read(None, 1.2, 1.8), Read(None, 7.1, 7.9), Read(None, 2.5, 2.6)], ids=["lost", "undone", "too early"]
)
def test_nothing_where_there_was_something_is_found(wrong: Read) -> None:
    gone = Write(2, 4, 5, is_deletion=True)
    assert [wrong] == calls(anomalies([ONE, gone, Write(3, 6, 7)], [wrong, Read(1, 2.4, 3.0)]))


def test_a_resurrected_value_is_found() -> None:
    gone = Write(2, 2, 3, is_deletion=True)
    assert 1 == len(anomalies([ONE, gone], [Read(1, 4.0, 5.0)]))


def possible(writes: list[Write], reads: list[Read]) -> bool:
    """By trying all orders: the definition itself, for small histories."""
    every: list[Write | Read] = [*writes, *reads]
    for order in itertools.permutations(every):
        moment, place, fine = -1.0, 0, True
        state: int | None = None
        for call in order:
            moment = max(moment, call.began)
            fine &= moment <= call.ended
            if isinstance(call, Write):
                fine &= call.place > place
                place = call.place
                state = None if call.is_deletion else call.place
            else:
                fine &= call.place == state
            if not fine:
                break
        if fine:
            return True
    return False


def history(chosen: random.Random, *, deletions: bool = False) -> tuple[list[Write], list[Read]]:
    def span() -> tuple[float, float]:
        began = chosen.randint(0, 9)
        return began, began + chosen.randint(0, 4)

    def gone() -> bool:
        return deletions and chosen.random() < 0.4

    writes = [Write(place, *span(), is_deletion=gone()) for place in range(1, chosen.randint(1, 3) + 1)]
    places = [None if write.is_deletion else write.place for write in writes] + [None] * deletions
    return writes, [Read(chosen.choice(places), *span()) for _ in range(chosen.randint(0, 3))]


def test_the_verdict_is_that_of_trying_all_orders() -> None:
    chosen = random.Random(11)
    verdicts = [(possible(*one), not anomalies(*one)) for one in (history(chosen) for _ in range(3_000))]
    assert [] == [verdict for verdict in verdicts if verdict[0] is not verdict[1]]
    assert {True, False} == {expected for expected, _ in verdicts}


def test_no_history_with_deletions_that_could_have_happened_is_accused() -> None:
    chosen = random.Random(12)
    histories = [history(chosen, deletions=True) for _ in range(3_000)]
    accused = [one for one in histories if possible(*one) and anomalies(*one)]
    assert [] == accused
    assert any(anomalies(*one) for one in histories)


def test_a_million_calls_are_judged_within_seconds() -> None:
    writes = [Write(place, place, place + 1.5) for place in range(1, 200_001)]
    reads = [Read(1 + number % 200_000, 1 + number % 200_000 + 0.6, 3 + number % 200_000) for number in range(800_000)]
    started = time.perf_counter()
    assert [] == anomalies(writes, reads)
    assert time.perf_counter() - started < 30

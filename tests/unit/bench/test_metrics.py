"""The metrics of ./dev bench quality, by hand."""

from __future__ import annotations

import math

import pytest

from bench.dialogues import UNANSWERABLE, Question
from bench.metrics import NAMES, TOTAL, averages, score


def named(ranked: list[str], gold: str) -> dict[str, float]:
    return dict(zip(NAMES, score(ranked, frozenset(gold.split())), strict=True))


def test_shares_places_and_gains_of_one_question() -> None:
    found = named(["x", "a", "y", "b"], "a b c")

    assert found["R@1"] == 0
    assert found["R@5"] == found["R@20"] == pytest.approx(2 / 3)
    assert (found["hit@10"], found["all@10"], found["MRR"]) == (1, 0, 0.5)
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["nDCG@10"] == pytest.approx(gained / best)


def test_a_turn_ranked_twice_counts_once_at_its_first_place() -> None:
    assert named(["x", "x", "a", "a"], "a") == named(["x", "a"], "a")


def test_a_turn_after_the_tenth_counts_for_depth_20_and_mrr_only() -> None:
    found = named([str(number) for number in range(12)] + ["a"], "a")

    assert (found["R@10"], found["R@20"], found["hit@10"], found["nDCG@10"]) == (0, 1, 0, 0)
    assert found["MRR"] == pytest.approx(1 / 13)


def test_a_question_without_a_ranking_counts_zero() -> None:
    questions = [
        Question("q1", "s", "?", frozenset({"a"}), "single"),
        Question("q2", "s", "?", frozenset({"a"}), "single"),
    ]

    found = averages(questions, {"q1": ["a"]})

    assert found[TOTAL] == {"n": 2, **dict.fromkeys(NAMES, 0.5)}


def test_unanswerable_questions_are_told_apart_from_the_total() -> None:
    questions = [
        Question("q1", "s", "?", frozenset({"a"}), "single"),
        Question("q2", "s", "?", frozenset({"a"}), UNANSWERABLE),
    ]

    found = averages(questions, {"q1": ["a"], "q2": ["b"]})

    assert (found[TOTAL]["n"], found[TOTAL]["R@1"]) == (1, 1)
    assert (found[UNANSWERABLE]["n"], found[UNANSWERABLE]["R@1"]) == (1, 0)

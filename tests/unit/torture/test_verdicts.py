"""The judges of a torture run convict: each thing that must never happen, planted in a history, is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.adversity.torture.history import Call, History, Kind
from tests.adversity.torture.isolation import Findings
from tests.adversity.torture.scene import Inhabitant
from tests.adversity.torture.truth import Answered, Truth
from tests.adversity.torture.verdicts import verdicts_of

KEY = ("acme", "k")
FINAL = {KEY: "two"}


def written() -> History:
    """Two acknowledged writes and a read."""
    return History(
        [
            Call(Kind.REMEMBER, "acme", "k", "one", 0.0, "r1", 1.0, acknowledged=True),
            Call(Kind.REMEMBER, "acme", "k", "two", 2.0, "r2", 3.0, acknowledged=True),
            Call(Kind.READ, "acme", "k", "two", 4.0, ended=5.0),
        ]
    )


def left() -> Truth:
    """What they leave behind."""
    return Truth(
        answered={"r1": Answered("acme", "m", 1, 1, True), "r2": Answered("acme", "m", 2, 2, True)},
        doubled=[],
        texts={KEY: "two"},
        changes={"acme": [1, 2]},
        revisions={"acme": 2},
        versions={("acme", "m"): [1, 2]},
        written={"acme": 2},
    )


def failed(history: History, truth: Truth, final: dict[tuple[str, str], str | None] | None = None) -> set[str]:
    return {
        verdict.name
        for verdict in verdicts_of(history, truth, dict(FINAL) if final is None else final)
        if not verdict.passed
    }


def test_a_good_run_passes() -> None:
    assert set() == failed(written(), left())


@pytest.mark.parametrize(
    ("change", "convicted"),
    [
        ({"answered": {"r1": Answered("acme", "m", 1, 1, True)}}, "nothing acknowledged is lost"),
        ({"doubled": ["r2"]}, "no request was carried out twice"),
        ({"written": {"acme": 3}}, "no request was carried out twice"),
        ({"changes": {"acme": [2]}}, "revisions have no gaps"),
        ({"versions": {("acme", "m"): [1, 3]}}, "versions have no gaps"),
        ({"texts": {KEY: "one"}}, "the last write is what is read"),
        (
            {"answered": {**left().answered, "r2": Answered("stranger", "m", 2, 2, True)}},
            "no request became another tenant's",
        ),
    ],
    ids=["lost", "two records", "two revisions", "gap", "version gap", "overwritten", "foreign"],
)
def test_a_truth_that_is_wrong_is_convicted(change: dict[str, object], convicted: str) -> None:
    assert convicted in failed(written(), replace(left(), **change))  # type: ignore[arg-type]


def test_a_stale_read_is_convicted() -> None:
    history = written()
    history.calls[-1].value = "one"
    assert {"histories are linearizable"} == failed(history, left())


def test_an_api_that_reads_something_else_in_the_end_is_convicted() -> None:
    assert {"the last write is what is read"} == failed(written(), left(), {KEY: None})


def test_an_answer_that_is_wrong_in_itself_is_convicted() -> None:
    history = written()
    history.wrong("it was another's")
    assert {"every answer was right in itself"} == failed(history, left())


def test_foreign_canaries_are_found_wherever_they_stand() -> None:
    own, foreign = "canary" + "0" * 32, "canary" + "1" * 32
    findings = Findings()
    findings.search("reading", Inhabitant("acme", "", own), f"x{own}y\0{foreign}".encode())
    assert (1, [f"reading: acme was shown {foreign}"]) == (findings.own, findings.leaks)

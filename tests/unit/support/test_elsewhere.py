"""Which stores tests run on."""

from __future__ import annotations

import pytest

from tests.support.elsewhere import NAMES, Elsewhere, StoresMisnamedError, in_containers


def test_stores_that_run_already_are_taken_when_all_are_named() -> None:
    environment = dict(zip(NAMES, ("postgresql://owner:x@db/soma", "redis://cache/0", "http://index:1"), strict=True))
    assert Elsewhere.named(environment) == Elsewhere(
        "postgresql://owner:x@db/soma", "redis://cache/0", "http://index:1"
    )
    assert Elsewhere.named({}) is None


@pytest.mark.parametrize("name", NAMES)
def test_some_of_the_stores_are_not_enough(name: str) -> None:
    with pytest.raises(StoresMisnamedError, match=f"{name} without"):
        Elsewhere.named({name: "somewhere"})


@pytest.mark.parametrize(
    ("wanted", "answers", "taken"), [("", True, True), ("", False, False), ("embedded", True, False)]
)
def test_containers_are_taken_where_an_engine_answers(wanted: str, answers: bool, taken: bool) -> None:
    assert in_containers({"SOMA_TEST_STORES": wanted}, lambda: answers) is taken


def test_containers_that_are_asked_for_and_cannot_run_are_an_error() -> None:
    with pytest.raises(StoresMisnamedError, match="no container engine answers"):
        in_containers({"SOMA_TEST_STORES": "containers"}, lambda: False)
    with pytest.raises(StoresMisnamedError, match="say embedded, containers or nothing"):
        in_containers({"SOMA_TEST_STORES": "podman"}, lambda: True)

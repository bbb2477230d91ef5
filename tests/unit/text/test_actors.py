"""Names cut from text, and matched against who said it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soma_contract.text import ActorNames, Mention, actor_match, without_names

_NAMES = st.lists(st.from_regex(r"[A-Z][a-z]{3,8}", fullmatch=True), min_size=1, max_size=4, unique=True)


def test_known_names_are_cut_with_their_possessive() -> None:
    names = ActorNames(["Caroline", "Melanie"])
    assert names.cut("When did Caroline's friend meet MELANIE?") == "When did friend meet ?"


def test_the_embedded_text_is_the_text_without_names() -> None:
    assert without_names("Caroline met Melanie there", ["Melanie", "Caroline"]) == "met there"
    assert without_names("Caroline met Melanie there", []) == "Caroline met Melanie there"


def test_parts_of_a_name_stand_for_the_whole() -> None:
    names = ActorNames(["Fahim Khan", "Akib"])
    assert names.mentioned("Where does Fahim work?") == Mention(frozenset({"Fahim Khan"}))
    assert names.cut("Fahim Khan and khan left") == "and left"


def test_unknown_names_stay() -> None:
    assert ActorNames(["Melanie"]).cut("Mel and Melanies met Kate") == "Mel and Melanies met Kate"


def test_a_text_of_names_alone_is_left_as_it_is() -> None:
    assert ActorNames(["Melanie"]).cut("Melanie!") == "Melanie!"


def test_a_name_that_is_an_everyday_word_is_cut_only_as_spelled() -> None:
    names = ActorNames(["Will"])
    assert names.cut("Will will go there") == "will go there"
    assert names.mentioned("what will happen") == Mention()


def test_roles_are_named_by_pronouns_and_never_cut() -> None:
    names = ActorNames(["User", "Assistant"])
    assert names.cut("the user asked the assistant") == "the user asked the assistant"
    assert names.mentioned("How many hours have I spent?").single == "User"
    assert names.mentioned("What approach did you recommend?").single == "Assistant"
    assert names.mentioned("What did you tell me?").single is None


def test_pronouns_name_nobody_where_actors_are_people() -> None:
    assert ActorNames(["Caroline"]).mentioned("what did I tell you") == Mention()


@pytest.mark.parametrize(
    ("named", "expected"),
    [({"Ann"}, [1.0, 0.0, 0.5]), (set(), [0.5, 0.5, 0.5]), ({"Ann", "Ben"}, [0.5, 0.5, 0.5])],
)
def test_only_a_single_named_actor_tells_match_from_other(named: set[str], expected: list[float]) -> None:
    assert actor_match(["Ann", "Ben", ""], Mention(frozenset(named))).tolist() == expected


@given(_NAMES, st.text(max_size=80))
def test_cutting_twice_is_cutting_once(names: list[str], text: str) -> None:
    known = ActorNames(names)
    once = known.cut(f"{text} {names[0]} said hello")
    assert once == known.cut(once)


@given(_NAMES, st.data())
def test_an_actor_named_is_found_and_gone_after_the_cut(names: list[str], data: st.DataObject) -> None:
    known = ActorNames(names)
    name = data.draw(st.sampled_from(names))
    query = f"what did {name} say"
    assert known.mentioned(query).single == name
    assert known.cut(query) == "what did say"


@given(_NAMES)
def test_match_is_one_of_three_values(names: list[str]) -> None:
    match = actor_match(names, Mention(frozenset(names[:1])))
    assert match.dtype == np.float32
    assert match.tolist() == [1.0] + [0.0] * (len(names) - 1)

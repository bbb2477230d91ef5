"""What the compiled expressions look like; what they mean is tested on the engine."""

from __future__ import annotations

import re

import pytest

from memory_server.stores.milvus.filters import MAX_ABSENT_TAGS, Expression, compile_filter, row_key
from soma_contract.filters import (
    EVERYTHING,
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    LabelField,
    LabelIn,
    NoneOf,
    PayloadCompare,
    TagsAll,
    TagsAny,
)
from soma_contract.tenant import admin_tenant

ACME = admin_tenant("acme", reason="tests")
ID = "0190b6a0-7c1e-7000-8000-000000000000"
ANA = LabelIn(LabelField.ACTOR, ("Ana",))
PAYLOAD = PayloadCompare(("a",), Comparison.EQ, (1,))


def text(filter: Filter, *, embedded: bool = True, ids: list[str] | None = None) -> str | None:
    return compile_filter(ACME, filter, ids=ids, embedded=embedded).text


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize(
    "filter",
    [
        EVERYTHING,
        ANA,
        AnyOf((ANA, PAYLOAD)),
        NoneOf((ANA,)),
        LabelIn(LabelField.NAMESPACE, ('x" or tenant != "acme',)),
        LabelIn(LabelField.ACTOR, ('") or (pk > "',)),
    ],
)
def test_the_tenant_always_comes_first_and_cannot_be_widened(filter: Filter, embedded: bool) -> None:
    compiled = text(filter, embedded=embedded)
    assert compiled is not None
    skeleton = re.sub(r'"[^"]*"', "?", compiled)
    assert skeleton.startswith("tenant == ?")
    assert skeleton.count("tenant") == 1
    rest = skeleton.removeprefix("tenant == ?").removeprefix(" and ")
    assert " or " not in rest or (rest[0], rest[-1]) == ("(", ")")
    assert rest.count("(") == rest.count(")")
    assert compiled.startswith('tenant == "acme"')


def test_a_filter_that_matches_nothing_needs_no_search() -> None:
    for nothing in (AnyOf(), NoneOf((EVERYTHING,)), LabelIn(LabelField.ACTOR, ()), TagsAny(()), AllOf((ANA, AnyOf()))):
        assert compile_filter(ACME, nothing, embedded=True) == Expression(None)
    assert compile_filter(ACME, EVERYTHING, ids=[], embedded=True) == Expression(None)


def test_a_restriction_to_ids_names_primary_keys() -> None:
    assert text(ANA, ids=[ID]) == f'tenant == "acme" and (pk == "acme|{ID}" and actor == "Ana")' or (
        text(ANA, ids=[ID]) == f'tenant == "acme" and (actor == "Ana" and pk == "acme|{ID}")'
    )


@pytest.mark.parametrize("bad", ["", "x", ID.upper().replace("0190B", "0190B"), ID + " ", '" or pk > "', ID[:-1]])
def test_what_is_no_canonical_id_never_becomes_a_key(bad: str) -> None:
    with pytest.raises(ValueError, match="memory id"):
        row_key("acme", bad)
    with pytest.raises(ValueError, match="memory id"):
        compile_filter(ACME, EVERYTHING, ids=[bad], embedded=True)
    assert compile_filter(ACME, LabelIn(LabelField.MEMORY_ID, (bad,)), embedded=True) == Expression(None)


def test_payload_conditions_let_through_in_either_sense() -> None:
    assert compile_filter(ACME, PAYLOAD, embedded=True) == Expression('tenant == "acme"', exact=False)
    assert compile_filter(ACME, NoneOf((PAYLOAD,)), embedded=True) == Expression('tenant == "acme"', exact=False)
    both = compile_filter(ACME, AllOf((ANA, PAYLOAD)), embedded=True)
    assert both == Expression('tenant == "acme" and actor == "Ana"', exact=False)


def test_absent_tags_are_asked_of_each_engine_as_it_understands() -> None:
    absent = NoneOf((TagsAny(("a", "b")),))
    assert text(absent, embedded=False) == 'tenant == "acme" and not array_contains_any(tags, ["a","b"])'
    embedded = text(absent)
    assert embedded is not None
    assert "not" not in embedded
    assert embedded.count("tag_digests[") == 2


def test_too_many_absent_tags_are_left_to_the_truth() -> None:
    many = tuple(f"t{n}" for n in range(MAX_ABSENT_TAGS + 1))
    assert compile_filter(ACME, NoneOf((TagsAny(many),)), embedded=True) == Expression('tenant == "acme"', exact=False)
    assert compile_filter(ACME, NoneOf((TagsAny(many[1:]),)), embedded=True).exact
    assert compile_filter(ACME, NoneOf((TagsAll(many),)), embedded=False).exact


def test_chains_are_balanced_and_the_deepest_part_is_nearest_to_the_root() -> None:
    wide = AnyOf(tuple(AllOf((LabelIn(LabelField.KEY, (f"{n}",)), ANA)) for n in range(128)))
    compiled = text(wide)
    assert compiled is not None
    assert _depth(compiled) <= 9
    deep: Filter = ANA
    for level in range(16):
        deep = AnyOf((*(LabelIn(LabelField.KEY, (f"{level}.{n}",)) for n in range(15)), NoneOf((deep,))))
    compiled = text(deep)
    assert compiled is not None
    assert _depth(compiled) <= 30


def _depth(expression: str) -> int:
    depth = deepest = 0
    for char in expression:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    return deepest

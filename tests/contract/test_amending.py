"""A memory with other values is what dataclasses.replace makes of it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soma_contract.amending import amended
from soma_contract.memory import Memory

NAMES = [field.name for field in fields(Memory)]


@given(st.dictionaries(st.sampled_from(NAMES), st.integers()), st.dictionaries(st.sampled_from(NAMES), st.integers()))
def test_it_is_equal_to_a_replacement(given_first: dict[str, Any], changed: dict[str, Any]) -> None:
    memory = Memory(**given_first)
    made = amended(memory, **changed)
    assert replace(memory, **changed) == made
    assert hash(made) == hash(replace(memory, **changed))
    assert Memory(**given_first) == memory


def test_a_field_that_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        amended(Memory(), colour="green")

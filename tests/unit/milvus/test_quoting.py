"""Nothing a caller writes can end a literal, and no two labels become one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from memory_server.stores.milvus.quoting import encoded, fits, prefix_bounds, quoted, quoted_list

labels = st.text() | st.text(st.sampled_from("\"'\\%{}$\n\r\x00\x7f\u2028\ud800a"), max_size=8)


@given(labels)
def test_a_literal_holds_no_quote_escape_template_or_control_character(label: str) -> None:
    literal = quoted(label)
    assert (literal[0], literal[-1]) == ('"', '"')
    assert not re.search(r"[\"'\\{}$\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", literal[1:-1])


@given(labels, labels)
def test_two_labels_never_become_one_and_prefixes_stay_prefixes(one: str, other: str) -> None:
    assert (encoded(one) == encoded(other)) == (one == other)
    assert encoded(one + other) == encoded(one) + encoded(other)


@given(labels.filter(bool), labels)
def test_the_bounds_of_a_prefix_hold_exactly_the_labels_that_start_with_it(prefix: str, label: str) -> None:
    low, high = (None if bound is None else bound[1:-1].encode() for bound in prefix_bounds(prefix))
    assert low is not None
    for candidate in (label, prefix + label, prefix[:-1] + label):
        stored = encoded(candidate).encode()
        inside = low <= stored and (high is None or stored < high)
        assert inside == candidate.startswith(prefix)


def test_a_prefix_of_the_last_character_has_no_upper_bound() -> None:
    assert prefix_bounds("\U0010ffff") == ('"\U0010ffff"', None)
    assert prefix_bounds("a\U0010ffff") == ('"a\U0010ffff"', '"b"')
    assert prefix_bounds("\ud7ff") == ('"\ud7ff"', '"\ue000"')


def test_plain_labels_stay_readable() -> None:
    assert quoted_list(["plan/1", "été", "日本"]) == '["plan/1","été","日本"]'


def test_every_label_of_the_contract_fits() -> None:
    assert fits("\n" * 256)
    assert fits("\u2028" * 85)
    assert not fits("\n" * 257)

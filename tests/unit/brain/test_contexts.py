"""Writing contexts: lines with citations within a budget, shortened texts, and the personas' file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_server.core.shortening import SHORT_ENTRY_TOKENS, Shortening
from brain_server.domain.composing import Citations, Section, composed
from brain_server.domain.persona import BUILT_IN
from brain_server.domain.summarising import best_sentences
from brain_server.stores.personas_file import PersonasFile, PersonasFileError, read_personas
from soma_contract.errors import BudgetSpentError
from soma_contract.filters import LabelField, LabelIn, matches
from soma_contract.ids import keyed_memory_id
from soma_contract.memory import Kind, Memory
from soma_contract.tokenizer import count_tokens
from tests.unit.brain.conftest import ManualClock

EXAMPLE = Path(__file__).parents[3] / "conf" / "tenants.yaml"
STORY = (
    "The old lighthouse keeper kept a careful diary. On the first of May the lamp failed at midnight. "
    "He ordered a new lamp from Oslo for four hundred crowns. His sister visited in June with her two children. "
    "The new lamp arrived broken. A fisherman lent him a lantern until autumn. "
) * 8


def memory(text: str, **fields: object) -> Memory:
    return Memory(memory_id=keyed_memory_id("tests", text), text=text, **fields)  # type: ignore[arg-type]


async def written(memories: Sequence[Memory], budget: int, question: str = "") -> Section:
    shortening = await Shortening.of(question, memories, None, 0.0)
    return composed("Notes", memories, budget, line_of=shortening.line, tail_of=shortening.tail, count=count_tokens)


async def test_each_line_quotes_a_memory_with_who_when_and_its_citation() -> None:
    said = memory("Tea,\n  please.", actor="Ada", occurred_at=datetime(2024, 5, 3, 9, tzinfo=UTC))
    section = await written([said, memory("No sugar.")], 200)
    end = said.memory_id.replace("-", "")[-8:]
    assert f"- 2024-05-03, Ada: Tea, please. [m:{end}]" == section.lines[0].text
    assert (said.memory_id,) == section.lines[0].memory_ids
    assert 2 == len(section.text.splitlines())
    assert count_tokens(section.text) == section.tokens


async def test_what_is_over_budget_is_told_in_a_tail_and_not_cut() -> None:
    memories = [memory(f"Note {number}: " + "the harbour master asked for the ledger. " * 3) for number in range(12)]
    section = await written(memories, 250)
    *quoted, tail = section.lines
    assert section.tokens <= 250
    assert [False] * len(quoted) == [line.summarised for line in quoted]
    assert (True, True) == (tail.summarised, len(tail.memory_ids) >= 1)
    assert 12 == len(section.memory_ids) + section.omitted
    assert list(section.memory_ids) == [each.memory_id for each in memories[: len(section.memory_ids)]]


async def test_a_long_entry_is_shortened_to_what_bears_on_the_question() -> None:
    assert count_tokens(STORY) > 400
    section = await written([memory(STORY)], 2_000, "who ordered a lamp, and from where?")
    (line,) = section.lines
    assert line.summarised
    assert "Oslo" in line.text
    assert section.tokens <= SHORT_ENTRY_TOKENS + 20
    assert all(word in STORY for word in line.text.removeprefix("- ").rpartition(" [m:")[0].split())


async def test_shortening_is_the_same_every_time() -> None:
    texts = [(await written([memory(STORY)], 300, "lamp")).text for _ in range(3)]
    assert 1 == len(set(texts))


class Model:
    """A language model that answers, is late, or talks too much."""

    def __init__(self, answer: str, *, late: bool = False) -> None:
        self.answer, self.late = answer, late

    async def shortened(self, question: str, texts: Sequence[str], most_tokens: int, deadline_s: float) -> list[str]:
        if self.late:
            raise BudgetSpentError(stage="summary")
        return [self.answer for _ in texts]


async def test_a_language_model_shortens_if_it_is_in_time_and_is_cut_if_it_talks_too_much() -> None:
    long = memory(STORY)
    shortening = await Shortening.of("lamp", [long], Model("A lamp was ordered."), 1.0)
    assert shortening.line(long).text.startswith("- A lamp was ordered. [m:")
    shortening = await Shortening.of("lamp", [long], Model("word " * 5_000), 1.0)
    assert count_tokens(shortening.line(long).text) <= SHORT_ENTRY_TOKENS + 20
    shortening = await Shortening.of("lamp", [long], Model("", late=True), 1.0)
    assert "lamp" in shortening.line(long).text


def test_citations_grow_where_ids_end_alike() -> None:
    citations = Citations()
    one, other = "00000000-0000-7000-8000-1111aaaabbbb", "00000000-0000-7000-8000-2222aaaabbbb"
    assert ["[m:aaaabbbb]", "[m:2222aaaabbbb]", "[m:aaaabbbb]"] == [citations.of(each) for each in (one, other, one)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("abc de.\n"), min_size=1, max_size=400), min_size=1, max_size=8),
    st.integers(10, 300),
)
def test_no_section_is_over_its_budget_and_every_memory_is_accounted_for(texts: list[str], budget: int) -> None:
    memories = [Memory(memory_id=keyed_memory_id("t", str(place)), text=text) for place, text in enumerate(texts)]
    section = asyncio.run(written(memories, budget, "abc de"))
    assert section.tokens <= budget
    assert count_tokens(section.text) == section.tokens
    assert len(memories) == len(section.memory_ids) + section.omitted


def test_chosen_sentences_stand_in_their_order_and_fit() -> None:
    sentences = ["Alpha beta.", "Gamma delta.", "Alpha gamma.", "Nothing here."]
    chosen = best_sentences(sentences, frozenset({"gamma", "delta"}), 8, lambda text: text.lower()[:-1].split(), len)
    assert [] == chosen
    chosen = best_sentences(
        sentences, frozenset({"gamma", "delta"}), 4, lambda text: text.lower()[:-1].split(), lambda text: 2
    )
    assert ["Gamma delta.", "Alpha gamma."] == chosen


# --- personas ---------------------------------------------------------------------------------------


def test_the_example_is_valid_and_means_what_it_says() -> None:
    personas = read_personas(EXAMPLE.read_text())
    support = personas.categories("dev", "support")
    assert ["The customer", "Earlier conversations", "House rules"] == [category.name for category in support]
    preference = Memory(namespace="customers", schema_type="UserPreference", kind=Kind.SEMANTIC)
    assert matches(support[0].filter, preference)
    assert not matches(support[0].filter, Memory(schema_type="UserPreference"))
    own = support[1].of_persona("support")
    assert matches(own, Memory(persona_id="support"))
    assert not matches(own, Memory(persona_id="another"))
    assert "Facts and preferences" == personas.categories("another", "")[0].name


def test_who_is_named_nowhere_gets_the_nearest_defaults() -> None:
    text = """
defaults: {categories: [{name: everybody}], personas: {clerk: {categories: [{name: any clerk}]}}}
tenants: {acme: {categories: [{name: acme}], personas: {clerk: {categories: [{name: acme's clerk}]}}}}
"""
    personas = read_personas(text)
    found = {
        (tenant, persona): personas.categories(tenant, persona)[0].name
        for tenant in ("acme", "other")
        for persona in ("clerk", "boss", "")
    }
    assert {
        ("acme", "clerk"): "acme's clerk",
        ("acme", "boss"): "acme",
        ("acme", ""): "acme",
        ("other", "clerk"): "any clerk",
        ("other", "boss"): "everybody",
        ("other", ""): "everybody",
    } == found
    assert BUILT_IN == read_personas("").categories("acme", "clerk")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tenants: {acme: {categories: [{name: a, limt: 3}]}}", "tenants.acme.categories.0.limt"),
        ("tenants: {acme: {categories: [{name: a, limit: 0}]}}", "tenants.acme.categories.0.limit"),
        ("tenants: {acme: {categories: [{name: a, kinds: [dream]}]}}", "tenants.acme.categories.0.kinds.0"),
        ("tenants: {acme: {personas: {p: {categories: []}}}}", "tenants.acme.personas.p.categories"),
        ("tenants: {acme: {personas: {p: {categories: [{name: a}, {name: a}]}}}}", "same name"),
        ("tenants: {Acme!: {}}", "no tenant's name"),
        ("tenants: {acme: {breaker: {consecutive: 0}}}", "tenants.acme.breaker.consecutive"),
        ("tenants: {acme: {breaker: {open_s: 9, open_max_s: 3}}}", "open_s must not be more"),
        ("tenants: [acme", "no YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_of_the_fault(text: str, told: str) -> None:
    with pytest.raises(PersonasFileError, match=told.replace(".", r"\.").replace("[", r"\[")):
        read_personas(text)


def test_a_changed_file_is_read_again_and_a_wrong_one_leaves_the_last_in_force(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "tenants.yaml"

    def write(text: str, at: int) -> None:
        path.write_text(text)
        os.utime(path, (at, at))

    write("defaults: {categories: [{name: one}]}", 1)
    file = PersonasFile(path, clock)
    for number, (text, expected) in enumerate(
        [
            ("defaults: {categories: [{name: two}]}", "two"),
            ("defaults: {categories: [{nme: three}]}", "two"),
            ("defaults: {categories: [{name: four}]}", "four"),
        ],
        start=2,
    ):
        write(text, number)
        clock.advance(2.0)
        assert expected == file.current().categories("t", "")[0].name
    path.unlink()
    clock.advance(2.0)
    assert "four" == file.current().categories("t", "")[0].name
    with pytest.raises(PersonasFileError, match=r"tenants\.yaml"):
        PersonasFile(path, clock)


def test_a_filter_is_made_of_every_condition() -> None:
    (category,) = read_personas(
        "defaults: {categories: [{name: a, namespaces: [x], key_prefix: k., kinds: [semantic]}]}"
    ).categories("t", "")
    assert LabelIn(LabelField.NAMESPACE, ("x",)) in category.filter.operands  # type: ignore[union-attr]
    assert matches(category.filter, Memory(namespace="x", key="k.1", kind=Kind.SEMANTIC))
    assert not matches(category.filter, Memory(namespace="x", key="q.1", kind=Kind.SEMANTIC))

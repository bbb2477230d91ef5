"""What readers make of other memories' exports; the samples were written for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from soma.memory.v1 import memory_pb2
from soma_client.readers import READERS
from soma_client.sources import Files
from soma_contract.errors import FieldViolationError

EXPORTS = Path(__file__).parent / "exports"


def read(origin: str, path: Path, **constants: str) -> list[memory_pb2.Memory]:
    """All memories of a file."""
    source = Files([path], READERS[origin](constants))
    return [source.record(item.value).memory for item in source.items()]


def test_mem0_keeps_what_was_known_of_whom_and_when() -> None:
    first, second, third, relation = read("mem0", EXPORTS / "mem0.json")
    assert ("4f9b2c1e-6a57-4d0c-9e0b-1f6a2d3c4b5a", "Ines is allergic to walnuts") == (first.memory_id, first.text)
    assert ("ines", "kitchen", "tuesday", ["health", "food"]) == (
        first.actor,
        first.persona_id,
        first.session_id,
        list(first.tags),
    )
    assert ("2025-03-04T16:15:30.123456Z", "2025-03-05T17:00:00Z") == (
        first.create_time.ToJsonString(),
        first.update_time.ToJsonString(),
    )
    assert '{"user_id":"ines","metadata":{"severity":"high"}}' == first.payload_json
    assert "2199-01-01T00:00:00Z" == second.expire_time.ToJsonString()
    assert (memory_pb2.KIND_SEMANTIC, memory_pb2.KIND_PROCEDURAL) == (second.kind, third.kind)
    assert "ines lives in lisbon" == relation.text


def test_letta_blocks_messages_and_passages_become_memories() -> None:
    human, persona, asked, answered, luggage, lift = read("letta", EXPORTS / "letta.af")
    assert [("Porter.human", "Likes short answers."), ("Porter.persona", "A porter of the old school.")] == [
        (human.key, human.text),
        (persona.key, persona.text),
    ]
    assert ("My train leaves at nine.", "Mira", "Porter", 1) == (
        asked.text,
        asked.actor,
        asked.session_id,
        asked.sequence,
    )
    assert ("Then your bags\nwill be down by eight.", memory_pb2.KIND_EPISODIC) == (answered.text, answered.kind)
    assert (["archival", "luggage"], "The lift is out of order on Mondays.") == (list(luggage.tags), lift.text)


def test_a_letta_file_of_one_agent_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "old.af").write_text(
        '{"name": "Old", "core_memory": [{"label": "human", "value": "Bo"}],'
        ' "messages": [{"role": "user", "text": "hello", "content": []}]}'
    )
    assert [("Old.human", "Bo"), ("", "hello")] == [(one.key, one.text) for one in read("letta", tmp_path / "old.af")]


def test_langgraph_items_and_table_rows_are_named_by_namespace_and_key() -> None:
    seat, diet, limits = read("langgraph", EXPORTS / "langgraph.jsonl")
    assert ["memories.noor.seat", "memories.noor.diet", "settings.limits"] == [seat.key, diet.key, limits.key]
    assert ["Prefers window seats", "Eats no fish", '{"daily":5,"hourly":1}'] == [seat.text, diet.text, limits.text]
    assert '{"kind":"food","content":"Eats no fish"}' == diet.payload_json
    assert "2025-02-01T10:00:00Z" == diet.create_time.ToJsonString()


def test_chatgpt_gives_the_branch_that_was_seen_in_its_order() -> None:
    asked, answered, more, *bird = read("chatgpt", EXPORTS / "conversations.json")
    assert ["How do I prune a fig tree?", "In late winter, while it sleeps.", "And how much?"] == [
        asked.text,
        answered.text,
        more.text,
    ]
    assert [("c-1", 0), ("c-1", 1), ("c-1", 2), ("c-2", 0), ("c-2", 1)] == [
        (one.session_id, one.sequence) for one in (asked, answered, more, *bird)
    ]
    assert ("assistant", '{"title":"Fig trees","role":"assistant","model":"large-4"}') == (
        answered.actor,
        answered.payload_json,
    )
    assert "2024-06-01T00:00:00.500Z" == asked.occurred_time.ToJsonString()
    assert "What bird is this?" == bird[1].text


@pytest.mark.parametrize("origin", READERS)
def test_the_same_export_gives_the_same_ids_and_takes_what_is_set(origin: str) -> None:
    names = {"mem0": "mem0.json", "letta": "letta.af", "langgraph": "langgraph.jsonl", "chatgpt": "conversations.json"}
    first, again = (read(origin, EXPORTS / names[origin], namespace="old") for _ in range(2))
    assert first == again
    assert {"old"} == {one.namespace for one in first}
    assert len(first) == len({one.memory_id or one.key for one in first})


@pytest.mark.parametrize("origin", READERS)
@pytest.mark.parametrize("content", ["", "no json", "[1]", '{"something": "else"}'])
def test_a_file_of_another_form_is_refused_by_name(origin: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(FieldViolationError, match=f"other.json is not an export of {origin}"):
        read(origin, tmp_path / "other.json")

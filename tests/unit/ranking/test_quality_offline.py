"""The offline measurement: the server's own formulas over exact search."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench.dialogues import Dialogues, read_dialogues
from bench.quality_offline import Vectors, measure
from memory_server.domain.presets import BALANCED
from soma_contract.embedders.hashing import HashingEmbedder

_TURNS = [
    ("Ann", "I adopted a grey kitten from the shelter."),
    ("Ben", "What did you name the kitten?"),
    ("Ann", "I named her Pebble because she is tiny."),
    ("Ben", "I am training for a marathon in Oslo."),
    ("Ann", "Running that far sounds exhausting."),
    ("Ben", "The race is in June."),
]
_QUESTIONS = [("Where does Ben run a marathon?", ["t3"]), ("What did Ann adopt from the shelter?", ["t0"])]


@pytest.fixture
def dialogues(tmp_path: Path) -> Dialogues:
    """One conversation of two people with two questions."""
    turns = [
        {
            "id": f"t{place}",
            "store": "one",
            "session": 1,
            "seq": place,
            "speaker": actor,
            "time": f"2023-05-0{place + 1}T10:00:00",
            "text": text,
        }
        for place, (actor, text) in enumerate(_TURNS)
    ]
    questions = [
        {"qid": f"q{place}", "store": "one", "query": query, "gold": gold, "category": "single-hop"}
        for place, (query, gold) in enumerate(_QUESTIONS)
    ]
    for name, rows in (("memories", turns), ("queries", questions)):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return read_dialogues(tmp_path)


async def test_the_pipeline_and_its_yardsticks_are_measured_on_the_same_questions(
    dialogues: Dialogues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMA_TESTING", "1")
    async with HashingEmbedder() as embedder:
        rows = await measure(dialogues, Vectors(embedder, None), {"balanced": BALANCED})
    assert {pipeline: values["n"] for pipeline, values in rows.items()} == {
        "BM25": 2,
        "dense": 2,
        "RRF60": 2,
        "balanced": 2,
    }
    assert rows["balanced"]["MRR"] == 1.0


async def test_vectors_are_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMA_TESTING", "1")
    async with HashingEmbedder() as embedder:
        (first,) = await Vectors(embedder, tmp_path / "vectors.db").of(["a grey kitten"])
        asked: list[str] = []
        original = embedder.embed

        async def counted(texts: list[str], **options: object) -> object:
            asked.extend(texts)
            return await original(texts, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(embedder, "embed", counted)
        (again,) = await Vectors(embedder, tmp_path / "vectors.db").of(["a grey kitten"])
    assert asked == []
    assert again.dense.tolist() == first.dense.tolist()
    assert again.tokens.tolist() == first.tokens.tolist()

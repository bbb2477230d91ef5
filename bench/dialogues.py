"""Conversations with questions and their gold turns, read from a directory of two gzipped files of JSON lines.

    memories.jsonl.gz   id, store, session, seq, speaker, time, text, and caption where a picture was sent
    queries.jsonl.gz    qid, store, query, gold (ids of turns), category

One turn is one memory; a question searches its own store. None of this data is part of the project.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

UNANSWERABLE = "adversarial"
"""Category whose questions have no answer; kept out of the total and told apart."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody said."""

    turn_id: str
    session: str
    sequence: int
    actor: str
    at: datetime
    text: str
    """With the caption of a picture that was sent along, if there is one."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the turns that answer it."""

    question_id: str
    store: str
    text: str
    gold: frozenset[str]
    category: str


@dataclass(frozen=True, slots=True)
class Dialogues:
    """A data set: turns by store, in order, and questions."""

    name: str
    stores: dict[str, tuple[Turn, ...]]
    questions: tuple[Question, ...]

    @property
    def turns(self) -> int:
        """Turns of all stores."""
        return sum(map(len, self.stores.values()))


def read_dialogues(directory: Path, most_stores: int | None = None) -> Dialogues:
    """Read a data set, or the first stores of it."""
    turns: dict[str, list[Turn]] = {}
    for row in _rows(directory / "memories.jsonl.gz"):
        turns.setdefault(row["store"], []).append(
            Turn(
                row["id"],
                str(row["session"]),
                row["seq"],
                row["speaker"],
                datetime.fromisoformat(row["time"]).replace(tzinfo=UTC),
                " ".join(part for part in (row["text"], row.get("caption")) if part),
            )
        )
    kept = sorted(turns)[:most_stores]
    questions = tuple(
        Question(row["qid"], row["store"], row["query"], frozenset(row["gold"]), row["category"])
        for row in _rows(directory / "queries.jsonl.gz")
        if row["store"] in kept
    )
    return Dialogues(directory.resolve().name, {store: tuple(turns[store]) for store in kept}, questions)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)

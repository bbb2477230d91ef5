"""What an export gives."""

from __future__ import annotations

from dataclasses import dataclass

from soma_contract.filters import EVERYTHING, Filter
from soma_contract.records import Record


@dataclass(frozen=True, slots=True)
class Export:
    """What to export: memories that match, with or without vectors, and the links between them."""

    filter: Filter = EVERYTHING
    embeddings: bool = False
    links: bool = False


@dataclass(frozen=True, slots=True)
class ExportFrame:
    """Some records; ``cursor`` resumes after them, ``revision`` is the first snapshot's."""

    records: tuple[Record, ...]
    cursor: str
    revision: int

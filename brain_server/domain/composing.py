"""Writing a section of a context: one line a memory, each with its citation, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from brain_server.domain.summarising import Count
from soma_contract.memory import Memory

_SHOWN = 8
"""Last characters of an id that a citation shows; more where two ids end alike."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line and the memories it rests on."""

    text: str
    memory_ids: tuple[str, ...]
    summarised: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """What a category has come to; ``omitted`` memories are in no line."""

    name: str
    lines: tuple[Line, ...] = ()
    tokens: int = 0
    omitted: int = 0

    @property
    def text(self) -> str:
        """The lines, ready to paste."""
        return "\n".join(line.text for line in self.lines)

    @property
    def memory_ids(self) -> tuple[str, ...]:
        """All memories cited, in order of appearance."""
        return tuple(dict.fromkeys(memory_id for line in self.lines for memory_id in line.memory_ids))


class Citations:
    """Short names of memories, unique within one context: ``[m:3f2a9c1d]`` is the end of the id."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def of(self, memory_id: str) -> str:
        """Return the citation of a memory, always the same."""
        name = self._names.get(memory_id)
        if name is None:
            bare = memory_id.replace("-", "")
            length = _SHOWN
            while self._ids.get(bare[-length:], memory_id) != memory_id:
                length += 4
            name = self._names[memory_id] = bare[-length:]
            self._ids[name] = memory_id
        return f"[m:{name}]"


def statement(memory: Memory, text: str = "") -> str:
    """Return what a memory says in one line, with who said it and when."""
    said = " ".join((text or memory.text).split())
    source = ", ".join(part for part in (_day(memory.occurred_at), memory.actor) if part)
    return f"{source}: {said}" if source else said


def composed(
    name: str,
    memories: Sequence[Memory],
    budget: int,
    *,
    line_of: Callable[[Memory], Line],
    tail_of: Callable[[Sequence[Memory], int], Sequence[Line]],
    count: Count,
) -> Section:
    """Return the section of these memories, best first: as many whole lines as fit, then a tail that tells the rest.

    When not all fit, a fifth of the budget is the tail's.
    """
    lines = [line_of(memory) for memory in memories]
    sizes = [count(line.text) for line in lines]
    whole = len(lines)
    if sum(sizes) > budget:
        room = budget - budget // 5
        whole = next((end for end in range(len(lines)) if sum(sizes[: end + 1]) > room), len(lines))
    kept = lines[:whole]
    left = budget - sum(sizes[:whole])
    if whole < len(lines):
        kept += tail_of(memories[whole:], left)
    cited = {memory_id for line in kept for memory_id in line.memory_ids}
    section = Section(name, tuple(kept))
    # Lines together may cut into other word pieces than alone.
    while section.lines and (tokens := count(section.text)) > budget:
        section = replace(section, lines=section.lines[:-1])
        cited = set(section.memory_ids)
    omitted = sum(memory.memory_id not in cited for memory in memories)
    return replace(section, tokens=tokens if section.lines else 0, omitted=omitted)


def _day(at: datetime | None) -> str:
    return at.date().isoformat() if at is not None else ""

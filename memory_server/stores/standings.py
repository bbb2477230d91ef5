"""Rows as they stand, and what commands make of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from soma_contract.memory import Memory, Origin, Written


@dataclass(frozen=True, slots=True)
class Standing:
    """A row as it stands; unless it is ``whole``, of its memory only identity, version and times are known."""

    memory: Memory
    deleted: bool
    content: bytes
    origin: Origin | None = None
    whole: bool = True

    def is_later_than(self, origin: Origin | None) -> bool:
        """Whether some brain has written it after a write of this origin."""
        if origin is None or self.origin is None:
            return False
        return (origin.at, origin.brain_id) < (self.origin.at, self.origin.brain_id)

    def lives(self, now: datetime) -> bool:
        """Whether readers see it."""
        expires_at = self.memory.expires_at
        return not self.deleted and (expires_at is None or expires_at > now)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the changelog; ``step`` counts the revisions of the scene from 1."""

    step: int
    op: Literal["put", "forget"]
    memory_id: str
    namespace: str
    version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a command does; its revision is ``step`` after the one before the scene."""

    memory: Memory | None
    step: int
    created: bool = False
    changed: bool = True
    warnings: tuple[str, ...] = ()

    def written(self, before: int) -> Written:
        """The answer, given the revision before the scene."""
        return Written(self.memory, before + self.step, self.created, self.changed, self.warnings)

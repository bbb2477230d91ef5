"""What an import does to the memories and links there are: the journal's rules, for records that bring their past.

A record keeps its version and times, so that an export of an import is the same again.  All changes of a commit are
one revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from memory_server.bulk_ports import Prepared, PreparedMemory
from memory_server.domain.imports import Admitted, Item
from memory_server.ports import Analyse
from memory_server.stores.deciding import Scene
from memory_server.stores.fingerprints import content_hash
from memory_server.stores.requests import Request
from memory_server.stores.standings import Entry, Standing
from soma_contract.amending import amended
from soma_contract.errors import MemoryExistsError, MemoryNotFoundError, SomaError, VersionMismatchError
from soma_contract.links import Link, LinkKey
from soma_contract.memory import Remember
from soma_contract.records import Conflict


class Taken(Enum):
    """What became of a record that was not refused."""

    STORED = "stored"
    SKIPPED = "skipped"


def prepared(item: Item, analyse: Analyse) -> Prepared:
    """Do what needs no row: hash and analyse a memory."""
    if isinstance(item, Admitted):
        return PreparedMemory(item, content_hash(item.memory), analyse(item.memory))
    return item


@dataclass(frozen=True, slots=True)
class Touched:
    """What the records of a commit name: ids of memories, (namespace, key) pairs, keys of links."""

    ids: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    links: tuple[LinkKey, ...]

    @classmethod
    def by(cls, records: Iterable[Prepared]) -> Touched:
        """Collect it."""
        ids: set[str] = set()
        keys: set[tuple[str, str]] = set()
        links: set[LinkKey] = set()
        for record in records:
            if isinstance(record, PreparedMemory):
                ids.update(record.ids)
                memory = record.admitted.memory
                if memory.key:
                    keys.add((memory.namespace, memory.key))
            elif isinstance(record, Link):
                ids.update((record.source_id, record.target_id))
                links.add(record.key)
        return cls(tuple(sorted(ids)), tuple(sorted(keys)), tuple(sorted(links)))


@dataclass(slots=True)
class ImportScene(Scene):
    """A scene that records are taken into, one after the other."""

    conflict: Conflict = Conflict.SKIP
    links: dict[LinkKey, Link] = field(default_factory=dict)
    made_links: dict[LinkKey, Link] = field(default_factory=dict)
    brought: dict[str, PreparedMemory] = field(default_factory=dict)
    """The memories taken, by id, with what was prepared of them."""

    @classmethod
    def of_import(cls, now: datetime, rows: Iterable[Standing], conflict: Conflict) -> ImportScene:
        """Set the scene with the rows that the records name."""
        plain = Scene.of(now, rows)
        return cls(now, plain.standings, plain.holders, conflict=conflict)

    def take(self, record: PreparedMemory | Link) -> Taken | SomaError:
        """Take one record, or say why not."""
        taken = self._link(record) if isinstance(record, Link) else self._memory(record)
        if taken is Taken.STORED:
            # All that is taken together is one revision.
            self.step = 1
        return taken

    def _memory(self, record: PreparedMemory) -> Taken | SomaError:
        given = record.admitted.memory
        command = Remember(given)
        found = self._remembered(Request(command, None, given.memory_id, record.content, b""), command)
        if isinstance(found, SomaError):
            return found
        memory_id, existing = found
        alive = existing if existing is not None and existing.lives(self.now) else None
        if alive is not None:
            if self.conflict is Conflict.FAIL:
                return MemoryExistsError(memory_id=memory_id, version=str(alive.memory.version))
            if self.conflict is Conflict.SKIP or alive.content == record.content:
                return Taken.SKIPPED
        self._evict_expired_holder(given)
        memory = amended(given, memory_id=memory_id, **self._past(record, existing, alive))
        if existing is not None and alive is None:
            self.ended.add(memory_id)
            for key in [key for key in self.links if memory_id in (key.source_id, key.target_id)]:
                del self.links[key]
        if alive is not None and memory_id in self.changed:
            self.passed.append(alive)
        if existing is not None and existing.memory.key:
            self._release(existing)
        if memory.key:
            self.holders[memory.namespace, memory.key] = memory_id
        self._set(Standing(memory, False, record.content, existing.origin if existing is not None else None))
        self.brought[memory_id] = record
        self.entries.append(Entry(1, "put", memory_id, memory.namespace, memory.version))
        return Taken.STORED

    def _past(self, record: PreparedMemory, existing: Standing | None, alive: Standing | None) -> dict[str, Any]:
        """Times and version: the record's own, as far as versions then grow and their times do not go back."""
        given = record.admitted.memory
        updated_at = given.updated_at or self.now
        created_at = given.created_at
        if alive is not None:
            updated_at = max(updated_at, alive.memory.updated_at or updated_at)
            created_at = created_at or alive.memory.created_at
        least = existing.memory.version + 1 if existing is not None else 1
        return {
            "version": max(given.version, least),
            "created_at": min(created_at or updated_at, updated_at),
            "updated_at": updated_at,
        }

    def _link(self, link: Link) -> Taken | SomaError:
        for name, memory_id in (("source", link.source_id), ("target", link.target_id)):
            end = self.standings.get(memory_id)
            if end is None or not end.lives(self.now):
                return MemoryNotFoundError(memory_id=memory_id, field=name)
        existing = self.links.get(link.key)
        if existing is not None:
            if self.conflict is Conflict.FAIL:
                return VersionMismatchError(
                    "there is such a link already", memory_id=link.source_id, expected="0", actual=str(existing.version)
                )
            if self.conflict is Conflict.SKIP or _same(existing, link):
                return Taken.SKIPPED
        updated_at = link.updated_at or self.now
        created_at = link.created_at
        if existing is not None:
            updated_at = max(updated_at, existing.updated_at or updated_at)
            created_at = created_at or existing.created_at
        least = existing.version + 1 if existing is not None else 1
        made = replace(
            link,
            version=max(link.version, least),
            created_at=min(created_at or updated_at, updated_at),
            updated_at=updated_at,
        )
        self.links[made.key] = self.made_links[made.key] = made
        return Taken.STORED


def surviving(passed: Sequence[Standing], changed: dict[str, Standing]) -> list[Standing]:
    """The versions that came and went within a scene and belong to the history."""
    return [row for row in passed if row.memory.memory_id in changed]


def _same(one: Link, other: Link) -> bool:
    def content(link: Link) -> tuple[object, ...]:
        return link.strength, link.metadata_json, link.valid_from, link.valid_until

    return content(one) == content(other)

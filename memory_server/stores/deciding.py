"""What a command does to the memories there are: the rules of the journal, without any store.

A store loads the rows that the commands name into a :class:`Scene`, asks it for verdicts one command after
the other, and then writes what the scene has collected.  Both journals decide here, so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from memory_server.stores.fingerprints import content_hash
from memory_server.stores.requests import Request
from memory_server.stores.standings import Entry, Standing, Verdict
from soma_contract.amending import amended
from soma_contract.completing import text_of_payload
from soma_contract.coordinate import coordinate_of
from soma_contract.errors import (
    FieldViolationError,
    KeyTakenError,
    MemoryExistsError,
    MemoryNotFoundError,
    SomaError,
    VersionMismatchError,
)
from soma_contract.ids import keyed_memory_id, new_memory_id
from soma_contract.memory import Forget, Memory, Origin, Remember, Target, Update

SUPERSEDED = "SUPERSEDED"
"""Warning on a write that was dropped because the memory has seen a later one of another brain."""

_MASKABLE = frozenset(
    {
        "namespace",
        "key",
        "kind",
        "schema_type",
        "schema_version",
        "persona_id",
        "text",
        "payload_json",
        "tags",
        "actor",
        "session_id",
        "sequence",
        "provenance",
        "importance",
        "relevance",
        "occurred_at",
        "expires_at",
        "embedding",
        "embedding_model",
    }
)


Mark = tuple[
    dict[str, Standing],
    dict[tuple[str, str], str],
    dict[str, Standing],
    list[Standing],
    set[str],
    list[Entry],
    int,
]
"""Everything a scene would have to restore."""


@dataclass(slots=True)
class Scene:
    """The rows that a batch of commands is about, and what the commands have changed so far."""

    now: datetime
    standings: dict[str, Standing]
    holders: dict[tuple[str, str], str] = field(default_factory=dict)
    changed: dict[str, Standing] = field(default_factory=dict)
    passed: list[Standing] = field(default_factory=list)
    """Versions that came and went within the scene, for the history."""
    ended: set[str] = field(default_factory=set)
    """Memories whose life ended here: their history, vectors and links go."""
    entries: list[Entry] = field(default_factory=list)
    step: int = 0

    @classmethod
    def of(cls, now: datetime, rows: Iterable[Standing]) -> Scene:
        """Set the scene with the rows that the requests name."""
        scene = cls(now, {row.memory.memory_id: row for row in rows})
        for memory_id, row in scene.standings.items():
            if row.memory.key and not row.deleted:
                scene.holders[row.memory.namespace, row.memory.key] = memory_id
        return scene

    def needs_whole(self, request: Request) -> str:
        """The id of a row whose content must be read before this request is decided, or an empty string."""
        row = self._named(request)
        if row is None or row.whole or row.deleted:
            return ""
        if isinstance(request.command, Update) or row.is_later_than(request.origin):
            return row.memory.memory_id
        return ""

    def decide(self, request: Request) -> Verdict | SomaError:
        """Apply one request."""
        match request.command:
            case Remember() as remember:
                return self._remember(request, remember)
            case Update() as update:
                return self._update(request, update)
            case Forget() as forget:
                return self._forget(request, forget)

    def mark(self) -> Mark:
        """Remember this moment, to come back to it when an atomic call is refused."""
        return (
            dict(self.standings),
            dict(self.holders),
            dict(self.changed),
            list(self.passed),
            set(self.ended),
            list(self.entries),
            self.step,
        )

    def rewind(self, mark: Mark) -> None:
        """Undo everything since the mark."""
        self.standings, self.holders, self.changed, self.passed, self.ended, self.entries, self.step = mark

    # --- the three commands

    def _remember(self, request: Request, command: Remember) -> Verdict | SomaError:
        row = self._remembered(request, command)
        if isinstance(row, SomaError):
            return row
        memory_id, existing = row
        alive = existing if existing is not None and existing.lives(self.now) else None
        if existing is not None and existing.is_later_than(request.origin):
            return self._dropped(alive)
        if command.if_match is not None and (alive is None or alive.memory.version != command.if_match):
            return _mismatch(memory_id, command.if_match, alive)
        if command.if_absent and alive is not None:
            return MemoryExistsError(memory_id=memory_id, version=str(alive.memory.version))
        given = command.memory
        memory = amended(
            given,
            memory_id=memory_id,
            coordinate=coordinate_of(given.key or memory_id),
            expires_at=self._expiry(given, command.ttl_s),
        )
        content = request.content if command.ttl_s is None else content_hash(memory)
        return self._put(memory, content, existing, alive, request.origin)

    def _update(self, request: Request, command: Update) -> Verdict | SomaError:
        existing = self._named(request)
        alive = existing if existing is not None and existing.lives(self.now) else None
        if existing is not None and existing.is_later_than(request.origin):
            return self._dropped(alive)
        if alive is None:
            return _absent(command.target)
        before = alive.memory
        if command.if_match is not None and before.version != command.if_match:
            return _mismatch(before.memory_id, command.if_match, alive)
        if unknown := sorted(set(command.mask) - _MASKABLE):
            return FieldViolationError.at("update_mask", f"cannot replace {unknown[0]}")
        memory = replace(before, **{name: getattr(command.memory, name) for name in command.mask})
        if command.ttl_s is not None:
            memory = replace(memory, expires_at=self._expiry(memory, command.ttl_s))
        if not memory.text:
            memory = replace(memory, text=text_of_payload(memory.payload_json) or memory.key)
            if not memory.text:
                return FieldViolationError.at("memory.text", "give a text, a payload with a text field, or a key")
        if memory.key and (memory.namespace, memory.key) != (before.namespace, before.key):
            holder = self._holder(memory.namespace, memory.key)
            if holder is not None and holder != before.memory_id:
                return KeyTakenError(key=memory.key, namespace=memory.namespace, memory_id=holder)
        if memory.key != before.key:
            memory = replace(memory, coordinate=coordinate_of(memory.key or memory.memory_id))
        return self._put(memory, content_hash(memory), alive, alive, request.origin)

    def _forget(self, request: Request, command: Forget) -> Verdict | SomaError:
        existing = self._named(request)
        alive = existing if existing is not None and existing.lives(self.now) else None
        if request.sweeping:
            alive = existing if alive is None and existing is not None and not existing.deleted else None
        if existing is not None and existing.is_later_than(request.origin):
            return self._dropped(None)
        if alive is None:
            if command.allow_missing:
                return Verdict(None, self.step, changed=False)
            return _absent(command.target)
        if command.if_match is not None and alive.memory.version != command.if_match:
            return _mismatch(alive.memory.memory_id, command.if_match, alive)
        self.step += 1
        self._bury(alive, request.origin)
        return Verdict(None, self.step)

    # --- what they share

    def _put(
        self,
        memory: Memory,
        content: bytes,
        existing: Standing | None,
        alive: Standing | None,
        origin: Origin | None,
    ) -> Verdict:
        if alive is not None and alive.content == content:
            same = alive.memory
            memory = amended(
                memory,
                version=same.version,
                created_at=same.created_at,
                updated_at=same.updated_at,
                embedding=None,
            )
            return Verdict(memory, self.step, changed=False)
        self.step += 1
        self._evict_expired_holder(memory)
        updated_at = self.now
        if existing is not None and existing.memory.updated_at is not None:
            # The clock may step back, a memory's versions never do.
            updated_at = max(updated_at, existing.memory.updated_at)
        memory = amended(
            memory,
            version=(existing.memory.version if existing is not None else 0) + 1,
            created_at=alive.memory.created_at if alive is not None else updated_at,
            updated_at=updated_at,
        )
        memory_id = memory.memory_id
        if existing is not None and alive is None:
            self.ended.add(memory_id)
        if alive is not None and memory_id in self.changed:
            self.passed.append(alive)
        if existing is not None and existing.memory.key:
            self._release(existing)
        if memory.key:
            self.holders[memory.namespace, memory.key] = memory_id
        kept = existing.origin if existing is not None else None
        self._set(Standing(memory, False, content, origin or kept))
        self.entries.append(Entry(self.step, "put", memory_id, memory.namespace, memory.version))
        return Verdict(amended(memory, embedding=None), self.step, created=alive is None)

    def _bury(self, row: Standing, origin: Origin | None) -> None:
        """Turn a row into a tombstone: identity, version and times, no content."""
        memory = row.memory
        self._release(row)
        tombstone = Memory(
            memory_id=memory.memory_id,
            namespace=memory.namespace,
            coordinate=memory.coordinate,
            created_at=memory.created_at,
            updated_at=max(self.now, memory.updated_at or self.now),
            version=memory.version + 1,
        )
        # What the scene itself had put there leaves no history behind.
        self.passed = [one for one in self.passed if one.memory.memory_id != memory.memory_id]
        self.ended.add(memory.memory_id)
        self._set(Standing(tombstone, True, b"", origin or row.origin))
        self.entries.append(Entry(self.step, "forget", memory.memory_id, memory.namespace, tombstone.version))

    def _set(self, row: Standing) -> None:
        self.standings[row.memory.memory_id] = row
        self.changed[row.memory.memory_id] = row

    def _release(self, row: Standing) -> None:
        held = row.memory.namespace, row.memory.key
        if self.holders.get(held) == row.memory.memory_id:
            del self.holders[held]

    def _evict_expired_holder(self, memory: Memory) -> None:
        held_by = self.holders.get((memory.namespace, memory.key)) if memory.key else None
        if held_by is not None and held_by != memory.memory_id:
            self._bury(self.standings[held_by], None)

    def _holder(self, namespace: str, key: str) -> str | None:
        memory_id = self.holders.get((namespace, key))
        return memory_id if memory_id is not None and self.standings[memory_id].lives(self.now) else None

    def _remembered(self, request: Request, command: Remember) -> tuple[str, Standing | None] | SomaError:
        """Which row a Remember is about: that of its id, else that of its key, else a new one."""
        memory = command.memory
        if not memory.key:
            memory_id = request.memory_id or new_memory_id()
            return memory_id, self.standings.get(memory_id)
        holder = self._holder(memory.namespace, memory.key)
        derived = keyed_memory_id(memory.namespace, memory.key)
        if request.memory_id in ("", derived):
            if holder is not None:
                return holder, self.standings[holder]
            taken = self.standings.get(derived)
            if taken is not None and taken.lives(self.now):
                # The memory made under this key was renamed since; it is not the one meant here.
                return new_memory_id(), None
            return derived, taken
        if holder is not None and holder != request.memory_id:
            return KeyTakenError(key=memory.key, namespace=memory.namespace, memory_id=holder)
        return request.memory_id, self.standings.get(request.memory_id)

    def _named(self, request: Request) -> Standing | None:
        if isinstance(request.command, Remember):
            row = self._remembered(request, request.command)
            return None if isinstance(row, SomaError) else row[1]
        target = request.command.target
        if target.memory_id:
            return self.standings.get(target.memory_id)
        if target.key:
            memory_id = self.holders.get((target.namespace, target.key))
            return self.standings[memory_id] if memory_id is not None else None
        found = [
            row
            for row in self.standings.values()
            if row.memory.coordinate == target.coordinate
            and row.memory.namespace == target.namespace
            and row.lives(self.now)
        ]
        return min(found, key=lambda row: row.memory.memory_id, default=None)

    def _dropped(self, alive: Standing | None) -> Verdict:
        memory = replace(alive.memory, embedding=None) if alive is not None else None
        return Verdict(memory, self.step, changed=False, warnings=(SUPERSEDED,))

    def _expiry(self, memory: Memory, ttl_s: float | None) -> datetime | None:
        return memory.expires_at if ttl_s is None else self.now + timedelta(seconds=ttl_s)


def _mismatch(memory_id: str, expected: int, alive: Standing | None) -> SomaError:
    actual = alive.memory.version if alive is not None else 0
    return VersionMismatchError(memory_id=memory_id, expected=str(expected), actual=str(actual))


def _absent(target: Target) -> SomaError:
    if target.memory_id:
        return MemoryNotFoundError(memory_id=target.memory_id)
    if target.key:
        return MemoryNotFoundError(namespace=target.namespace, key=target.key)
    return MemoryNotFoundError(namespace=target.namespace)

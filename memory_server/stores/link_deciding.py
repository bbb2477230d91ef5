"""What a command does to the links there are: the rules of links, without any store.

A store loads the memories and links that the commands name into a :class:`LinkScene`, asks it for verdicts one command
after the other, and then writes what the scene has collected.  Both graph stores decide here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from typing import Literal

from soma_contract.errors import (
    FieldViolationError,
    LinkNotFoundError,
    MemoryNotFoundError,
    SomaError,
    VersionMismatchError,
)
from soma_contract.links import (
    CO_RECALLED,
    FAN_OUT,
    PLANS_KEPT,
    REFERENCES,
    USED_IN_PLAN,
    Link,
    LinkCommand,
    LinkKey,
    LinkWritten,
    MakeLink,
    Refer,
    RemoveLink,
    UseTogether,
    decayed,
    grown,
)
from soma_contract.memory import Coordinate, Origin, Target

BY_PAYLOAD = "payload"
"""Who made a link: a memory's payload.  Callers' links have an empty maker, those of use have ``use``."""
BY_USE = "use"


@dataclass(frozen=True, slots=True)
class End:
    """A living memory that a link may start or end at."""

    memory_id: str
    namespace: str
    key: str = ""
    coordinate: Coordinate | None = None


@dataclass(frozen=True, slots=True)
class StandingLink:
    """A link as it is stored: its strength as of ``link.updated_at``, who made it, the origin of its last change."""

    link: Link
    made_by: str = ""
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class LinkEntry:
    """One line of the changelog; ``step`` counts the revisions of the scene from 1."""

    step: int
    op: Literal["link", "unlink"]
    key: LinkKey
    namespace: str
    version: int


@dataclass(frozen=True, slots=True)
class LinkVerdict:
    """What a command does; its revision is ``step`` after the one before the scene."""

    link: Link | None
    step: int
    created: bool = False
    changed: bool = True
    unknown: int = 0

    def written(self, before: int) -> LinkWritten:
        """The answer, given the revision before the scene."""
        return LinkWritten(self.link, before + self.step, self.created, self.changed, self.unknown)


@dataclass(slots=True)
class LinkScene:
    """The memories and links that a batch of commands is about, and what the commands have changed so far."""

    now: datetime
    ends: dict[str, End]
    standing: dict[LinkKey, StandingLink] = field(default_factory=dict)
    changed: dict[LinkKey, StandingLink | None] = field(default_factory=dict)
    """What to write: a link in its new form, or None for one that goes."""
    entries: list[LinkEntry] = field(default_factory=list)
    step: int = 0
    _named: dict[tuple[str, str], End] = field(default_factory=dict)
    _placed: dict[tuple[str, Coordinate | None], End] = field(default_factory=dict)
    _fans: dict[str, set[LinkKey]] = field(default_factory=dict)
    """The co_recalled links of each memory."""
    _referred: dict[str, set[LinkKey]] = field(default_factory=dict)
    """The links that each memory's payload made."""

    @classmethod
    def of(cls, now: datetime, ends: Iterable[End], links: Iterable[StandingLink]) -> LinkScene:
        """Set the scene with the memories that the commands name and the links they are about."""
        scene = cls(now, {end.memory_id: end for end in sorted(ends, key=lambda end: end.memory_id)})
        for end in scene.ends.values():
            if end.key:
                scene._named[end.namespace, end.key] = end
            scene._placed.setdefault((end.namespace, end.coordinate), end)
        for standing in links:
            scene._stand(standing)
        return scene

    def decide(self, command: LinkCommand, origin: Origin | None) -> LinkVerdict | SomaError:
        """Apply one command."""
        match command:
            case MakeLink():
                return self._make(command, origin)
            case RemoveLink():
                return self._remove(command, origin)
            case UseTogether():
                return self._use(command)
            case Refer():
                return self._refer(command)

    def end(self, target: Target) -> End | None:
        """The living memory that a target names."""
        if target.memory_id:
            return self.ends.get(target.memory_id)
        if target.key:
            return self._named.get((target.namespace, target.key))
        return self._placed.get((target.namespace, target.coordinate))

    # --- the four commands

    def _make(self, command: MakeLink, origin: Origin | None) -> LinkVerdict | SomaError:
        ends = self._both(command.source, command.target)
        if isinstance(ends, SomaError):
            return ends
        key = LinkKey(ends[0].memory_id, command.relation, ends[1].memory_id)
        before = self.standing.get(key)
        if before is not None and _is_older(origin, before.origin):
            return LinkVerdict(self._seen(before), self.step, changed=False)
        version = before.link.version if before is not None else 0
        if command.if_match is not None and command.if_match != version:
            return _mismatch(key, command.if_match, version)
        link = Link(
            *_ends_of(key),
            key.relation,
            command.strength,
            command.metadata_json,
            command.valid_from,
            command.valid_until,
        )
        if before is not None and before.made_by == "" and _same(before.link, link, self.now):
            return LinkVerdict(self._seen(before), self.step, changed=False)
        self.step += 1
        stored = self._put(link, "", origin)
        return LinkVerdict(stored, self.step, created=before is None)

    def _remove(self, command: RemoveLink, origin: Origin | None) -> LinkVerdict | SomaError:
        source, target = self.end(command.source), self.end(command.target)
        key = LinkKey(source.memory_id, command.relation, target.memory_id) if source and target else None
        before = self.standing.get(key) if key is not None else None
        if before is None or key is None:
            if command.allow_missing:
                return LinkVerdict(None, self.step, changed=False)
            return LinkNotFoundError(
                source_id=source.memory_id if source else command.source.memory_id,
                target_id=target.memory_id if target else command.target.memory_id,
                relation=command.relation,
            )
        if _is_older(origin, before.origin):
            return LinkVerdict(None, self.step, changed=False)
        if command.if_match is not None and command.if_match != before.link.version:
            return _mismatch(key, command.if_match, before.link.version)
        self.step += 1
        self._drop(key)
        return LinkVerdict(None, self.step)

    def _use(self, command: UseTogether) -> LinkVerdict:
        """Strengthen every pair; the smaller id is the source, so that a pair has one link."""
        known = sorted(memory_id for memory_id in set(command.memory_ids) if memory_id in self.ends)
        unknown = len(set(command.memory_ids)) - len(known)
        if len(known) < 2:
            return LinkVerdict(None, self.step, changed=False, unknown=unknown)
        self.step += 1
        for source, target in combinations(known, 2):
            self._strengthen(LinkKey(source, CO_RECALLED, target), "")
            if command.plan_id:
                self._strengthen(LinkKey(source, USED_IN_PLAN, target), command.plan_id)
        self._prune(known)
        return LinkVerdict(None, self.step, unknown=unknown)

    def _refer(self, command: Refer) -> LinkVerdict:
        """Make the links of a payload those that it names now; links that callers made are left alone."""
        source = self.ends.get(command.memory_id)
        if source is None:
            return LinkVerdict(None, self.step, changed=False, unknown=1)
        named = [self.end(target) for target in command.targets]
        wanted = {
            LinkKey(source.memory_id, REFERENCES, end.memory_id)
            for end in named
            if end is not None and end.memory_id != source.memory_id
        }
        had = self._referred.get(source.memory_id, set())
        missing = [key for key in sorted(wanted) if key not in self.standing]
        unknown = sum(end is None for end in named)
        if not missing and had <= wanted:
            return LinkVerdict(None, self.step, changed=False, unknown=unknown)
        self.step += 1
        for key in missing:
            self._put(Link(*_ends_of(key), key.relation), BY_PAYLOAD, None)
        for key in sorted(had - wanted):
            self._drop(key)
        return LinkVerdict(None, self.step, unknown=unknown)

    # --- what they share

    def _strengthen(self, key: LinkKey, plan_id: str) -> None:
        before = self.standing.get(key)
        left = decayed(key.relation, before.link.strength, before.link.updated_at, self.now) if before else 0.0
        # A link that somebody made by hand keeps what they gave it; use only adds.
        link = before.link if before is not None else Link(*_ends_of(key), key.relation)
        link = replace(link, strength=min(1.0, grown(left)))
        if plan_id:
            link = replace(link, metadata_json=_with_plan(link.metadata_json, plan_id))
        self._put(link, before.made_by if before is not None else BY_USE, before.origin if before is not None else None)

    def _prune(self, memory_ids: Sequence[str]) -> None:
        """Keep each memory's strongest co_recalled links."""
        for memory_id in memory_ids:
            fan = self._fans.get(memory_id, set())
            if len(fan) > FAN_OUT:
                for key in sorted(fan, key=lambda key: (-self._left(key), key))[FAN_OUT:]:
                    self._drop(key)

    def _left(self, key: LinkKey) -> float:
        link = self.standing[key].link
        return decayed(link.relation, link.strength, link.updated_at, self.now)

    def _put(self, link: Link, made_by: str, origin: Origin | None) -> Link:
        key = link.key
        before = self.standing.get(key)
        updated_at = self.now
        if before is not None and before.link.updated_at is not None:
            # The clock may step back, a link's versions never do.
            updated_at = max(updated_at, before.link.updated_at)
        stored = replace(
            link,
            version=(before.link.version if before is not None else 0) + 1,
            created_at=before.link.created_at if before is not None else updated_at,
            updated_at=updated_at,
        )
        kept = before.origin if before is not None else None
        standing = self.changed[key] = StandingLink(stored, made_by, origin or kept)
        self._stand(standing)
        self.entries.append(LinkEntry(self.step, "link", key, self._namespace(key), stored.version))
        return stored

    def _drop(self, key: LinkKey) -> None:
        before = self._fall(key)
        self.changed[key] = None
        self.entries.append(LinkEntry(self.step, "unlink", key, self._namespace(key), before.link.version + 1))

    def _stand(self, standing: StandingLink) -> None:
        key = standing.link.key
        if key in self.standing:
            self._fall(key)
        self.standing[key] = standing
        if key.relation == CO_RECALLED:
            for end in _ends_of(key):
                self._fans.setdefault(end, set()).add(key)
        if standing.made_by == BY_PAYLOAD:
            self._referred.setdefault(key.source_id, set()).add(key)

    def _fall(self, key: LinkKey) -> StandingLink:
        standing = self.standing.pop(key)
        for index in (self._fans, self._referred):
            for end in _ends_of(key):
                index.get(end, set()).discard(key)
        return standing

    def _namespace(self, key: LinkKey) -> str:
        end = self.ends.get(key.source_id) or self.ends.get(key.target_id)
        return end.namespace if end is not None else ""

    def _both(self, source: Target, target: Target) -> tuple[End, End] | SomaError:
        start, end = self.end(source), self.end(target)
        if start is None:
            return missing_end(source, "source")
        if end is None:
            return missing_end(target, "target")
        if start.memory_id == end.memory_id:
            return FieldViolationError.at("target", "must not be the source: a memory is never linked to itself")
        return start, end

    def _seen(self, standing: StandingLink) -> Link:
        link = standing.link
        return replace(link, strength=decayed(link.relation, link.strength, link.updated_at, self.now))


def missing_end(target: Target, field: str) -> MemoryNotFoundError:
    """The error for an end that does not exist, or is another tenant's: the same answer."""
    message = f"the {field} of the link does not exist in this tenant and namespace; remember it first"
    if target.memory_id:
        return MemoryNotFoundError(message, memory_id=target.memory_id, field=field)
    if target.key:
        return MemoryNotFoundError(message, namespace=target.namespace, key=target.key, field=field)
    return MemoryNotFoundError(message, namespace=target.namespace, field=field)


def targets_of(commands: Iterable[LinkCommand]) -> list[Target]:
    """Every memory the commands name."""
    named: list[Target] = []
    for command in commands:
        match command:
            case MakeLink() | RemoveLink():
                named += [command.source, command.target]
            case UseTogether():
                named += [Target(memory_id=memory_id) for memory_id in command.memory_ids]
            case Refer():
                named += [Target(memory_id=command.memory_id), *command.targets]
    return named


def _ends_of(key: LinkKey) -> tuple[str, str]:
    return key.source_id, key.target_id


def _same(before: Link, link: Link, now: datetime) -> bool:
    left = decayed(before.relation, before.strength, before.updated_at, now)
    return (left, before.metadata_json, before.valid_from, before.valid_until) == (
        link.strength,
        link.metadata_json,
        link.valid_from,
        link.valid_until,
    )


def _is_older(origin: Origin | None, last: Origin | None) -> bool:
    return origin is not None and last is not None and (origin.at, origin.brain_id) < (last.at, last.brain_id)


def _mismatch(key: LinkKey, expected: int, actual: int) -> SomaError:
    return VersionMismatchError(
        "the link is at another version than if_match says; read it again and redo the change",
        memory_id=key.source_id,
        expected=str(expected),
        actual=str(actual),
    )


def _with_plan(metadata: str, plan_id: str) -> str:
    """Note a plan in a link's metadata, under ``plan_ids``, latest last."""
    held = json.loads(metadata) if metadata else {}
    named = held.get("plan_ids")
    plans = [one for one in named if one != plan_id] if isinstance(named, list) else []
    held["plan_ids"] = [*plans, plan_id][-PLANS_KEPT:]
    return json.dumps(held, ensure_ascii=False, separators=(",", ":"))

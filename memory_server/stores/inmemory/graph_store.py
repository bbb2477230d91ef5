"""The graph store in memory: the same rules, every link looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from memory_server.domain.paths import Step
from memory_server.ports import Expansion
from memory_server.stores.inmemory.journal_state import InMemoryTruth, TenantRows
from memory_server.stores.link_deciding import BY_PAYLOAD, End, LinkEntry, LinkScene, LinkVerdict, StandingLink
from memory_server.stores.link_requests import dump_answer, link_request_hash, load_answer
from soma_contract.errors import BudgetSpentError, RequestIdReusedError, SomaError
from soma_contract.links import Direction, Link, LinkCommand, LinkKey, LinkWritten, Reach, decayed, place_of
from soma_contract.memory import Origin, Target
from soma_contract.tenant import Tenant

_Lives = tuple[datetime | None, datetime | None]
"""When the lives of a link's two ends began: a memory that was forgotten and made anew has lost its links."""


@dataclass(slots=True)
class TenantLinks:
    """The links of one tenant."""

    links: dict[LinkKey, tuple[StandingLink, _Lives]] = field(default_factory=dict)
    answers: dict[str, tuple[bytes, str, LinkWritten]] = field(default_factory=dict)
    changelog: list[tuple[int, LinkEntry]] = field(default_factory=list)


@dataclass(slots=True)
class InMemoryGraphStore:
    """See :class:`memory_server.ports.GraphStore`."""

    truth: InMemoryTruth
    tenants: dict[str, TenantLinks] = field(default_factory=dict)

    async def write(
        self,
        tenant: Tenant,
        commands: Sequence[LinkCommand],
        *,
        origin: Origin | None = None,
        deadline_s: float | None = None,
    ) -> list[LinkWritten | SomaError]:
        """Commit commands in order."""
        if deadline_s is not None and deadline_s <= 0:
            raise BudgetSpentError(stage="write")
        rows, kept, now = self.truth.of(tenant), self._of(tenant), self.truth.clock.now()
        scene = LinkScene.of(now, _ends(rows, now), self._standing(tenant))
        before = rows.revision
        answers: list[LinkWritten | SomaError] = []
        for command in commands:
            fingerprint = link_request_hash(command) if command.request_id else b""
            known = kept.answers.get(command.request_id) if command.request_id else None
            if command.request_id in rows.answers or (known is not None and known[0] != fingerprint):
                answers.append(RequestIdReusedError(request_id=command.request_id))
                continue
            if known is not None:
                _, text, first = known
                answers.append(load_answer(text, revision=first.revision, created=first.created, changed=first.changed))
                continue
            verdict = scene.decide(command, origin)
            answer = verdict.written(before) if isinstance(verdict, LinkVerdict) else verdict
            answers.append(answer)
            if command.request_id and isinstance(verdict, LinkVerdict) and isinstance(answer, LinkWritten):
                kept.answers[command.request_id] = fingerprint, dump_answer(verdict), answer
        for key, standing in scene.changed.items():
            if standing is None:
                kept.links.pop(key, None)
            else:
                kept.links[key] = standing, _lives(rows, key)
        kept.changelog += [(before + entry.step, entry) for entry in scene.entries]
        rows.revision += scene.step
        return answers

    async def answered(self, tenant: Tenant, request_ids: Sequence[str]) -> set[str]:
        """Return those request ids that have been answered before."""
        known = self._of(tenant).answers.keys() | self.truth.of(tenant).answers.keys()
        return known & set(request_ids)

    async def resolve(self, tenant: Tenant, targets: Sequence[Target]) -> list[str | None]:
        """Read the ids of living memories in the order of the targets."""
        now = self.truth.clock.now()
        scene = LinkScene.of(now, _ends(self.truth.of(tenant), now), ())
        ends = [scene.end(target) for target in targets]
        return [end.memory_id if end is not None else None for end in ends]

    async def expand(
        self,
        tenant: Tenant,
        memory_ids: Sequence[str],
        reach: Reach,
        *,
        each: int,
        limit: int,
        whole: bool = False,
        deadline_s: float | None = None,
    ) -> Expansion:
        """Read the strongest steps on from each memory."""
        if deadline_s is not None and deadline_s <= 0:
            raise BudgetSpentError(stage="graph")
        by_start: dict[str, list[Step]] = {}
        walked: dict[Step, Link] = {}
        for link in self._seen(tenant, reach, self.truth.clock.now()):
            for start, reached, outgoing in _walks(link, reach.direction):
                step = Step(start, reached, link.strength, link.relation, outgoing)
                by_start.setdefault(start, []).append(step)
                walked[step] = link
        steps: list[Step] = []
        cut = False
        for memory_id in memory_ids:
            found = sorted(
                by_start.get(memory_id, ()),
                key=lambda step: (-step.strength, step.reached, step.relation, not step.outgoing),
            )
            cut = cut or len(found) > each
            steps += found[:each]
        cut, steps = cut or len(steps) > limit, steps[:limit]
        return Expansion(tuple(steps), cut, tuple(walked[step] for step in steps) if whole else ())

    async def among(
        self, tenant: Tenant, memory_ids: Sequence[str], reach: Reach, *, limit: int, deadline_s: float | None = None
    ) -> Expansion:
        """Read the links that lead from one of these to another."""
        within = set(memory_ids)
        steps = [
            Step(link.source_id, link.target_id, link.strength, link.relation, True)
            for link in self._seen(tenant, reach, self.truth.clock.now())
            if link.source_id in within and link.target_id in within
        ]
        return Expansion(tuple(steps[:limit]), len(steps) > limit)

    async def referring(self, tenant: Tenant, memory_ids: Sequence[str]) -> set[str]:
        """Return those memories that have links which their payloads made."""
        sources = {one.link.source_id for one in self._standing(tenant) if one.made_by == BY_PAYLOAD}
        return sources & set(memory_ids)

    async def links(self, tenant: Tenant, keys: Sequence[LinkKey]) -> list[Link | None]:
        """Read links in the order of the keys."""
        found = {link.key: link for link in self._seen(tenant, Reach(), self.truth.clock.now())}
        return [found.get(key) for key in keys]

    async def page(
        self, tenant: Tenant, memory_id: str, reach: Reach, *, at: datetime, after: Link | None, limit: int
    ) -> list[Link]:
        """Read links of a memory, strongest first."""
        found = [
            link
            for link in self._seen(tenant, reach, at)
            if any(start == memory_id for start, _, _ in _walks(link, reach.direction))
        ]
        ordered = sorted(found, key=lambda link: place_of(link, memory_id))
        if after is not None:
            ordered = [link for link in ordered if place_of(link, memory_id) > place_of(after, memory_id)]
        return ordered[:limit]

    def _of(self, tenant: Tenant) -> TenantLinks:
        return self.tenants.setdefault(tenant.name, TenantLinks())

    def _standing(self, tenant: Tenant) -> list[StandingLink]:
        """The links whose ends still have the life they had when linked."""
        rows, kept = self.truth.of(tenant), self._of(tenant)
        for key in [key for key, (_, lives) in kept.links.items() if lives != _lives(rows, key)]:
            del kept.links[key]
        return [standing for standing, _ in kept.links.values()]

    def _seen(self, tenant: Tenant, reach: Reach, at: datetime) -> Iterator[Link]:
        rows, now = self.truth.of(tenant), self.truth.clock.now()
        for standing in self._standing(tenant):
            link = _faded(standing.link, at)
            if (
                all(rows.rows[end].lives(now) for end in (link.source_id, link.target_id))
                and (not reach.relations or link.relation in reach.relations)
                and link.strength >= reach.min_strength
                and (link.valid_from is None or link.valid_from <= now)
                and (link.valid_until is None or link.valid_until > now)
            ):
                yield link


def _ends(rows: TenantRows, now: datetime) -> list[End]:
    return [
        End(memory_id, row.memory.namespace, row.memory.key, row.memory.coordinate)
        for memory_id, row in rows.rows.items()
        if row.lives(now)
    ]


def _lives(rows: TenantRows, key: LinkKey) -> _Lives:
    def began(memory_id: str) -> datetime | None:
        row = rows.rows.get(memory_id)
        return row.memory.created_at if row is not None and not row.deleted else None

    return began(key.source_id), began(key.target_id)


def _walks(link: Link, direction: Direction) -> list[tuple[str, str, bool]]:
    walks = []
    if direction is not Direction.INCOMING:
        walks.append((link.source_id, link.target_id, True))
    if direction is not Direction.OUTGOING:
        walks.append((link.target_id, link.source_id, False))
    return walks


def _faded(link: Link, at: datetime) -> Link:
    return replace(link, strength=decayed(link.relation, link.strength, link.updated_at, at))

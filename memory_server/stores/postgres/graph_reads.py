"""Reading neighbourhoods of the graph: always from some memories on, never the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from memory_server.domain.paths import Step
from memory_server.ports import Expansion
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE
from memory_server.stores.postgres.link_rows import STRENGTH, VALID, link_of, named
from memory_server.stores.postgres.transactions import Transactions
from soma_contract.links import CO_RECALLED, FAN_OUT, Direction, Link, LinkKey, Reach, decayed, place_of
from soma_contract.memory import Coordinate, Target
from soma_contract.tenant import Tenant

_FADING = 1_000
_WAYS = {
    Direction.OUTGOING: (("source_id", "target_id", "true"),),
    Direction.INCOMING: (("target_id", "source_id", "false"),),
    Direction.BOTH: (("source_id", "target_id", "true"), ("target_id", "source_id", "false")),
}
_EXPIRED = (
    "SELECT m.memory_id FROM memory_items m"
    " WHERE m.tenant = $1 AND m.expires_at <= statement_timestamp() AND m.expires_at IS NOT NULL AND NOT m.deleted"
)
"""Of the ends of links, forgotten ones have none and these are few: a set that is made once a statement."""


@dataclass(frozen=True, slots=True)
class GraphReads:
    """The reading half of the graph store."""

    transactions: Transactions

    async def resolve(self, tenant: Tenant, targets: Sequence[Target]) -> list[str | None]:
        """Read the ids of living memories in the order of the targets."""
        ids, *others = named(targets)
        if len(ids) == len(set(targets)):
            query = sql.filled("resolve_ids", live=LIVE)
            async with self.transactions.tenant(tenant) as connection:
                living = {str(row[0]) for row in await connection.fetch(query, tenant.name, ids)}
            return [target.memory_id if target.memory_id in living else None for target in targets]
        query = sql.filled("resolve_targets", live=LIVE)
        async with self.transactions.tenant(tenant) as connection:
            rows = await connection.fetch(query, tenant.name, ids, *others)
        living = {str(row[0]) for row in rows}
        keyed = {(row[1], row[2]): str(row[0]) for row in rows if row[2]}
        placed: dict[tuple[str, Coordinate | None], str] = {}
        for row in rows:
            placed.setdefault((row[1], tuple(row[3])), str(row[0]))
        found: list[str | None] = []
        for target in targets:
            if target.memory_id:
                found.append(target.memory_id if target.memory_id in living else None)
            elif target.key:
                found.append(keyed.get((target.namespace, target.key)))
            else:
                found.append(placed.get((target.namespace, target.coordinate)))
        return found

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
        if not memory_ids:
            return Expansion(())
        query = _expansion(reach.direction, whole=whole)
        # Read in the order of what is stored: of those that have faded, which may stand too high there, a memory has
        # at most so many.
        read = each + 1 + (FAN_OUT if not reach.relations or CO_RECALLED in reach.relations else 0)
        async with self.transactions.tenant(tenant, deadline_s=deadline_s) as connection:
            rows = await connection.fetch(
                query,
                tenant.name,
                memory_ids,
                list(reach.relations) or None,
                reach.min_strength,
                read,
                each + 1,
                limit + 1,
            )
        steps: list[Step] = []
        links: list[Link] = []
        cut, place, taken = len(rows) > limit, 0, 0
        for row in rows[:limit]:
            if row[0] != place:
                place, taken = row[0], 0
            taken += 1
            if taken > each:
                cut = True
                continue
            step = Step(memory_ids[place - 1], str(row[1]), row[2], row[3], row[4])
            steps.append(step)
            if whole:
                ends = (step.came_from, step.reached) if step.outgoing else (step.reached, step.came_from)
                links.append(Link(*ends, step.relation, step.strength, *row[5:11]))
        return Expansion(tuple(steps), cut, tuple(links))

    async def among(
        self, tenant: Tenant, memory_ids: Sequence[str], reach: Reach, *, limit: int, deadline_s: float | None = None
    ) -> Expansion:
        """Read the links that lead from one of these to another."""
        if not memory_ids:
            return Expansion(())
        query = sql.filled("links_among", strength=STRENGTH, valid=VALID)
        relations = list(reach.relations) or None
        async with self.transactions.tenant(tenant, deadline_s=deadline_s) as connection:
            rows = await connection.fetch(query, tenant.name, memory_ids, relations, reach.min_strength, limit + 1)
        steps = tuple(Step(memory_ids[row[0] - 1], str(row[1]), row[2], row[3], True) for row in rows[:limit])
        return Expansion(steps, len(rows) > limit)

    async def referring(self, tenant: Tenant, memory_ids: Sequence[str]) -> set[str]:
        """Return those memories that have links which their payloads made."""
        async with self.transactions.tenant(tenant) as connection:
            rows = await connection.fetch(sql.query("find_referring"), tenant.name, memory_ids)
        return {str(row[0]) for row in rows}

    async def links(self, tenant: Tenant, keys: Sequence[LinkKey]) -> list[Link | None]:
        """Read links in the order of the keys."""
        if not keys:
            return []
        query = sql.filled("read_links", strength=STRENGTH, valid=VALID, live=LIVE)
        async with self.transactions.tenant(tenant) as connection:
            rows = await connection.fetch(
                query,
                tenant.name,
                [key.source_id for key in keys],
                [key.relation for key in keys],
                [key.target_id for key in keys],
            )
        found = {link.key: link for link in map(link_of, rows)}
        return [found.get(key) for key in keys]

    async def page(
        self, tenant: Tenant, memory_id: str, reach: Reach, *, at: datetime, after: Link | None, limit: int
    ) -> list[Link]:
        """Read links of a memory, strongest at the time ``at`` first, behind ``after``."""
        fading = not reach.relations or CO_RECALLED in reach.relations
        lasting, fades = f"l.relation <> '{CO_RECALLED}'", f"l.relation = '{CO_RECALLED}'"
        parts = []
        for near, far, outgoing in _WAYS[reach.direction]:
            incoming = "false" if outgoing == "true" else "true"
            tied = f"l.strength = $6 AND l.{far} >= $7 AND (l.{far}, l.relation, {incoming}) > ($7, $8, $9)"
            behind = [lasting] if after is None else [f"{lasting} AND {tied}", f"{lasting} AND l.strength < $6"]
            wanted = [(condition, "$5") for condition in behind] + ([(fades, str(_FADING))] if fading else [])
            parts += [
                sql.filled("part_page", near=near, far=far, behind=condition, most=most, valid=VALID, live=LIVE)
                for condition, most in wanted
            ]
        query = sql.filled("page_links", parts="\nUNION ALL\n".join(parts))
        values: list[object] = [memory_id, list(reach.relations) or None, reach.min_strength, limit]
        if after is not None:
            strength, other, relation, comes_in = place_of(after, memory_id)
            values += [-strength, other, relation, comes_in]
        async with self.transactions.tenant(tenant) as connection:
            rows = await connection.fetch(query, tenant.name, *values)
        links = []
        for row in rows:
            link = link_of(row)
            left = decayed(link.relation, link.strength, link.updated_at, at)
            if left >= reach.min_strength:
                links.append(link if left == link.strength else replace(link, strength=left))
        ordered = sorted(links, key=lambda link: place_of(link, memory_id))
        if after is not None:
            end = place_of(after, memory_id)
            ordered = [link for link in ordered if place_of(link, memory_id) > end]
        return ordered[:limit]


@cache
def _expansion(direction: Direction, *, whole: bool) -> str:
    columns = ", l.metadata, l.valid_from, l.valid_until, l.version, l.created_at, l.updated_at" if whole else ""
    # Links that leave at once are checked as strictly as those that are read again by their keys.
    strict = f"EXISTS (SELECT FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = l.{{far}} AND {LIVE})"
    lives = strict if whole else f"(l.{{far}} NOT IN ({_EXPIRED})) IS TRUE"
    walks = " UNION ALL ".join(
        sql.filled(
            "part_walk",
            near=near,
            outgoing=outgoing,
            strength=STRENGTH,
            valid=VALID,
            lives=lives,
            far=far,
            columns=columns,
        )
        for near, far, outgoing in _WAYS[direction]
    )
    return sql.filled(
        "expand_links",
        walks=walks,
        starts=f"WHERE (u.id NOT IN ({_EXPIRED})) IS TRUE",
        columns=columns.replace("l.", "w."),
        found=columns.replace("l.", "s."),
    )

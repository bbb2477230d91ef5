"""Rows of links as links, and the parts of SQL that every reader of links shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from memory_server.stores.fingerprints import place_key
from memory_server.stores.link_deciding import StandingLink
from soma_contract.links import CO_RECALLED, HALF_LIFE_DAYS, Link
from soma_contract.memory import Coordinate, Origin, Target

STRENGTH = (
    f"CASE WHEN l.relation = '{CO_RECALLED}' THEN l.strength * power(2.0::float8, -LEAST(1000.0, GREATEST(0.0,"
    f" extract(epoch FROM statement_timestamp() - l.updated_at)::float8 / {HALF_LIFE_DAYS * 86_400.0})))"
    " ELSE l.strength END"
)
"""What is left of a link's strength now."""

VALID = (
    "(l.valid_from IS NULL OR l.valid_from <= statement_timestamp())"
    " AND (l.valid_until IS NULL OR l.valid_until > statement_timestamp())"
)
"""What every reader asks of a link, besides that its ends live."""


def link_of(row: Sequence[Any]) -> Link:
    """Read a link from the first columns of a row."""
    return Link(str(row[0]), str(row[1]), *row[2:10])


def standing_of(row: Sequence[Any]) -> StandingLink:
    """Read a link as read_standing_links.sql tells it."""
    origin = Origin(row[12], row[11]) if row[11] is not None else None
    return StandingLink(link_of(row), row[10], origin)


def standing_values(standing: StandingLink) -> list[object]:
    """The values of a link's columns for write_links.sql."""
    link, origin = standing.link, standing.origin
    return [
        link.source_id,
        link.target_id,
        link.relation,
        link.strength,
        link.metadata_json,
        link.valid_from,
        link.valid_until,
        link.version,
        link.created_at,
        link.updated_at,
        standing.made_by,
        origin.at if origin is not None else None,
        origin.brain_id if origin is not None else "",
    ]


def named(targets: Iterable[Target]) -> list[Sequence[object]]:
    """The ids, namespaces, keys and keys of coordinates that targets name, as the queries that find ends take them."""
    ids: set[str] = set()
    keys: set[tuple[str, str]] = set()
    places: set[Coordinate] = set()
    for target in targets:
        if target.memory_id:
            ids.add(target.memory_id)
        elif target.key:
            keys.add((target.namespace, target.key))
        elif target.coordinate is not None:
            places.add(target.coordinate)
    ordered = sorted(keys)
    return [
        sorted(ids),
        [namespace for namespace, _ in ordered],
        [key for _, key in ordered],
        [place_key(place) for place in sorted(places)],
    ]

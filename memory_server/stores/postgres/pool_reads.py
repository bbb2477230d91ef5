"""The one statement that re-reads candidates, and its answer as rows of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray

from memory_server.ports import OpenRows, PoolRow, TermStats
from memory_server.stores.fingerprints import place_key, term_keys, text_key
from memory_server.stores.postgres import sql
from memory_server.stores.postgres.filters import LIVE, Parameters, compiled
from memory_server.stores.postgres.records import WIDTH, columns, memory_of
from memory_server.stores.postgres.row_cache import KeptRow, RowCache
from memory_server.stores.postgres.vectors import bigints_of, counts_of, vectors_of
from memory_server.stores.scopes import namespaces_of
from soma_contract.filters import Filter
from soma_contract.memory import Target
from soma_contract.tenant import Tenant

OPEN_WINDOW = 16
"""So many rows that the index may not hold are read along with the candidates."""

# Places of the answer's columns: the statistics, then the row.
_CORPUS, _LENGTH, _FREQUENCIES, _REVISION, _OPEN, _OPEN_IDS, _BEHIND_IDS = range(7)
_ID, _MARK, _VECTOR_MARK, _DENSE, _SENTENCES, _TOKENS, _TOKEN_IDS, _NEIGHBOUR, _WIDE = range(7, 16)
_TERMS = _WIDE + WIDTH

_MARKS = {"row_mark": "xid", "vector_mark": "xid"}
_NEAR_MARKS = {
    "before_id": "uuid",
    "before_mark": "xid",
    "before_vector_mark": "xid",
    "after_id": "uuid",
    "after_mark": "xid",
    "after_vector_mark": "xid",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pool is read for."""

    tenant: Tenant
    filter: Filter
    ids: Sequence[str]
    terms: Sequence[str]
    profile: str
    neighbours: bool
    details: bool
    exact: Target | None
    exact_text: str
    epoch: int | None


class PoolRead:
    """One reading of a pool: the statement with its values, then what came as rows."""

    def __init__(self, asked: Asked, cache: RowCache) -> None:
        self._asked = asked
        self._cache = cache
        self._keys = term_keys(asked.tenant.name, asked.terms)
        self._held: dict[str, KeptRow] = {}

    def rows(self, answer: Sequence[asyncpg.Record]) -> list[PoolRow]:
        """The pool; what came is kept for the next time."""
        kept: list[KeptRow] = []
        near: list[bool] = []
        for row in answer:
            if row[_ID] is not None:
                kept.append(self._row(row))
                near.append(row[_NEIGHBOUR])
        counts = count_matrix(self._keys, kept)
        return [
            PoolRow(one.memory, one.vectors, row_counts, one.length, neighbour)
            for one, row_counts, neighbour in zip(kept, counts, near, strict=True)
        ]

    def stats(self, answer: Sequence[asyncpg.Record], rows: Sequence[PoolRow]) -> TermStats:
        """The statistics beside the rows, and what the index may not hold."""
        first = answer[0]
        memories = first[_CORPUS]
        frequencies = bigints_of(first[_FREQUENCIES]) if self._keys else np.zeros(0, np.int64)
        mean = first[_LENGTH] / memories if memories else 0.0
        opened = None if self._asked.epoch is None else _open_rows(first, rows)
        return TermStats(memories, mean, frequencies, first[_REVISION] or 0, opened)

    def _row(self, row: asyncpg.Record) -> KeptRow:
        memory_id, mark, vector_mark = row[_ID], row[_MARK], row[_VECTOR_MARK] or 0
        held = self._held.get(memory_id)
        if row[_WIDE] is None and held is not None:
            if held.vector_mark == vector_mark and (held.detailed or not self._asked.details):
                return held
            kept = KeptRow(mark, held.memory, held.length, held.term_keys, held.term_counts)
        else:
            wide = tuple(row[_WIDE : _TERMS + 3])
            kept = KeptRow(mark, memory_of(wide), wide[WIDTH], bigints_of(wide[WIDTH + 1]), counts_of(wide[WIDTH + 2]))
        if row[_DENSE] is not None:
            kept.vector_mark, kept.detailed = vector_mark, self._asked.details
            kept.vectors = vectors_of(row[_DENSE], row[_SENTENCES], row[_TOKENS], row[_TOKEN_IDS])
        elif held is not None and vector_mark and held.vector_mark == vector_mark:
            kept.vector_mark, kept.detailed, kept.vectors = vector_mark, held.detailed, held.vectors
        self._cache.keep((self._asked.tenant.name, self._asked.profile, memory_id), kept)
        return kept

    def written(self) -> tuple[str, list[object]]:
        """The statement and its values, by what is kept now."""
        asked = self._asked
        parameters = Parameters([asked.tenant.name])
        names = {**_MARKS, **(_NEAR_MARKS if asked.neighbours else {})}
        marks = [
            parameters.add(list(values), f"{kind}[]")
            for values, kind in zip(self._marks(), names.values(), strict=True)
        ]
        parts = {
            "columns": columns("m"),
            "vectors": sql.query("part_details" if asked.details else "part_no_details").rstrip(),
            "ids": parameters.add(asked.ids, "uuid[]"),
            "marks": ", ".join(marks),
            "mark_names": ", ".join(["memory_id", *names]),
            "no_marks": ", ".join(f"NULL::{kind}" for kind in names.values()),
            "near_marks": "".join(f", named.{name}" for name in list(names)[len(_MARKS) :]),
            "live": LIVE,
            "profile": parameters.add(asked.profile, "text"),
            "namespaces": namespaces(asked.filter, parameters),
            "keys": parameters.add(self._keys, "bigint[]"),
            "filter": compiled(asked.filter, parameters),
        }
        parts |= self._open_parts(parts["profile"], parameters)
        parts["more"] = " UNION ALL ".join(self._more(parameters))
        for part in ("wide", "vectors_of"):
            parts[part] = sql.filled(f"part_{part}", **parts).strip()
        parts["near"] = sql.filled("part_near", **parts).rstrip() if asked.neighbours else ""
        parts["neighbours"] = sql.filled("part_neighbours", **parts).rstrip() if asked.neighbours else ""
        return sql.filled("pool", **parts), parameters.values

    def _marks(self) -> list[list[Any]]:
        """What is held of each candidate, and of the turns that were seen before and after it, by column."""
        asked, cache = self._asked, self._cache
        name, profile, details = asked.tenant.name, asked.profile, asked.details
        rows: list[tuple[Any, ...]] = []
        for memory_id in asked.ids:
            held = cache.get((name, profile, memory_id))
            marks: tuple[Any, ...] = (None, None)
            if held is not None:
                self._held[memory_id] = held
                marks = (held.mark, held.vector_mark if held.detailed or not details else 0)
            if asked.neighbours:
                for step in (-1, 1):
                    marks += self._turn(held, step)
            rows.append(marks)
        if not rows:
            return [[] for _ in range(len(_MARKS) + (len(_NEAR_MARKS) if asked.neighbours else 0))]
        return [list(column) for column in zip(*rows, strict=True)]

    def _turn(self, held: KeptRow | None, step: int) -> tuple[Any, Any, Any]:
        """What is held of the turn next to a row: id and marks."""
        if held is None or not held.memory.session_id or held.memory.sequence is None:
            return None, None, None
        memory, asked = held.memory, self._asked
        place = (asked.tenant.name, asked.profile, memory.namespace, memory.session_id, (memory.sequence or 0) + step)
        turn = self._cache.at(place)
        if turn is None:
            return None, None, None
        self._held[turn.memory.memory_id] = turn
        return turn.memory.memory_id, turn.mark, turn.vector_mark if turn.detailed or not asked.details else 0

    def _open_parts(self, profile: str, parameters: Parameters) -> dict[str, str]:
        if self._asked.epoch is None:
            return {"open": "0::bigint AS open_rows, NULL::text AS open_ids, NULL::text AS behind_ids", "opened": ""}
        window = parameters.add(OPEN_WINDOW, "bigint")
        asked = parameters.add(self._asked.epoch, "bigint")
        epoch = sql.filled("part_epoch", asked=asked, profile=profile, tenant="gate.tenant")
        return {
            "open": sql.filled("part_open", window=window).strip(),
            "opened": sql.filled("part_opened", epoch=epoch, window=window).rstrip(),
        }

    def _more(self, parameters: Parameters) -> list[str]:
        """Where further ids come from: the exact target, the verbatim text, what the index may not hold."""
        exact, text = self._asked.exact, self._asked.exact_text
        more = ["SELECT unnest(string_to_array(stats.open_ids, ',')::uuid[]) AS memory_id"]
        if exact is not None and exact.memory_id:
            more.append(f"SELECT {parameters.add(exact.memory_id, 'uuid')}")
        elif exact is not None and exact.key:
            namespace, key = parameters.add(exact.namespace, "text"), parameters.add(exact.key, "text")
            more.append(sql.filled("part_exact_key", namespace=namespace, key=key))
        elif exact is not None and exact.coordinate is not None:
            more.append(sql.filled("part_exact_place", place=parameters.add(place_key(exact.coordinate), "bigint")))
        if text:
            key, verbatim = parameters.add(text_key(text), "bigint"), parameters.add(text, "text")
            more.append(sql.filled("part_exact_text", key=key, text=verbatim))
        return more


def count_matrix(keys: Sequence[int], rows: Sequence[KeptRow]) -> NDArray[np.int32]:
    """How often each key occurs in each row, shape (rows, keys).

    All rows are looked through at once: a loop over rows would cost more than the query.
    """
    matrix = np.zeros((len(rows), len(keys)), np.int32)
    if not keys or not rows:
        return matrix
    all_keys = np.concatenate([row.term_keys for row in rows])
    hits, places = np.nonzero(all_keys[:, None] == np.array(keys, np.int64)[None, :])
    if len(hits):
        all_counts = np.concatenate([row.term_counts for row in rows])
        owners = np.repeat(np.arange(len(rows)), [len(row.term_keys) for row in rows])
        matrix[owners[hits], places] = all_counts[hits]
    return matrix


def _open_rows(first: asyncpg.Record, rows: Sequence[PoolRow]) -> OpenRows:
    if first[_OPEN] > OPEN_WINDOW:
        return OpenRows((), 0, more=True)
    opened = frozenset((first[_OPEN_IDS] or "").split(","))
    behind = frozenset((first[_BEHIND_IDS] or "").split(","))
    ids = [row.memory.memory_id for row in rows]
    return OpenRows(tuple(one for one in ids if one in opened), sum(one in behind for one in ids))


def namespaces(filter: Filter, parameters: Parameters) -> str:
    """The namespaces a filter is within, as a parameter that is null for all."""
    named = namespaces_of(filter)
    return parameters.add(list(named) if named is not None else None, "text[]")

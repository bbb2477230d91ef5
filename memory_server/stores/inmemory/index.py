"""The vector index in memory: the same answers as Milvus, by brute force."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from memory_server.ports import Collection, CollectionLostError, IndexHit, IndexRow, IndexSearch
from memory_server.stores.rows import accepted_rows
from soma_contract.errors import ComponentUnavailableError
from soma_contract.filters import (
    EVERYTHING,
    AllOf,
    AnyOf,
    Filter,
    NoneOf,
    PayloadCompare,
    matches,
    reads_payload,
)
from soma_contract.ids import parse_memory_id
from soma_contract.tenant import Tenant
from soma_contract.text.analysis import analyzer

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOTHING = AnyOf()
_K1, _B = 1.2, 0.75


@dataclass(slots=True)
class _Stored:
    row: IndexRow
    terms: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.terms = Counter(analyzer().terms(self.row.keyword_text))


_Rows = dict[tuple[str, str], _Stored]


class InMemoryIndex:
    """The VectorIndex port without a store; ``available`` False makes every call fail as in an outage."""

    def __init__(self) -> None:
        self.available = True
        self._collections: dict[tuple[str, int, int], _Rows] = {}

    def wipe(self) -> None:
        """Lose everything, as a deleted data directory does."""
        self._collections.clear()

    async def ensure(self, collection: Collection) -> bool:
        """Make the collection exist; True when what this epoch had indexed is gone."""
        self._check_available()
        name, epoch, dimension = key = _key(collection)
        if key in self._collections:
            older = [k for k in self._collections if k[0] == name and k[1] < epoch]
            for other in older:
                del self._collections[other]
            return False
        if not any(k[0] == name and k[1] > epoch and k[2] == dimension for k in self._collections):
            self._collections[name, epoch + 1, dimension] = {}
        return True

    async def upsert(self, collection: Collection, rows: Sequence[IndexRow]) -> None:
        """Write rows; of several with one key the highest version counts."""
        stored = self._rows(collection)
        for row in accepted_rows(rows, collection.dimension):
            stored[row.tenant.name, row.memory.memory_id] = _Stored(row)

    async def remove(self, collection: Collection, keys: Sequence[tuple[Tenant, str]]) -> None:
        """Delete rows by (tenant, id); absent ones are fine."""
        stored = self._rows(collection)
        for tenant, memory_id in keys:
            stored.pop((tenant.name, memory_id), None)

    async def search(
        self,
        tenant: Tenant,
        collection: Collection,
        filter: Filter,
        *,
        dense: NDArray[np.float32] | None,
        keyword_text: str | None,
        ids: Sequence[str] | None = None,
        limit: int,
        deadline_s: float,
    ) -> IndexSearch:
        """Search both legs among the rows that pass the filter, payload conditions aside."""
        stored = self._rows(collection)
        allowed = None if ids is None else {_canonical(memory_id) for memory_id in ids}
        relaxed = without_payload(filter)
        candidates = [
            found
            for (name, memory_id), found in stored.items()
            if name == tenant.name and (allowed is None or memory_id in allowed) and matches(relaxed, found.row.memory)
        ]
        dense_hits = keyword_hits = None
        if dense is not None:
            query = np.asarray(dense, dtype=np.float32)
            dense_hits = _best([(found, float(found.row.dense @ query)) for found in candidates], limit)
        if keyword_text is not None:
            scores = _bm25(analyzer().terms(keyword_text), candidates, list(stored.values()))
            keyword_hits = _best(scores, limit)
        return IndexSearch(dense_hits, keyword_hits, exact=not reads_payload(filter))

    async def versions(self, collection: Collection, *, after_key: str, limit: int) -> list[tuple[str, str, int]]:
        """Read (tenant name, memory id, version) of all rows in key order."""
        found = {
            f"{name}|{memory_id}": (name, memory_id, stored.row.version)
            for (name, memory_id), stored in self._rows(collection).items()
        }
        return [found[key] for key in sorted(found) if key > after_key][:limit]

    async def count(self, collection: Collection) -> int:
        """Count the rows of a collection."""
        return len(self._rows(collection))

    async def drop(self, collection_name: str) -> None:
        """Delete a collection with all its epochs."""
        self._check_available()
        for key in [key for key in self._collections if key[0] == collection_name]:
            del self._collections[key]

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        self._check_available()

    def _rows(self, collection: Collection) -> _Rows:
        self._check_available()
        try:
            return self._collections[_key(collection)]
        except KeyError:
            raise CollectionLostError(collection.name) from None

    def _check_available(self) -> None:
        if not self.available:
            raise ComponentUnavailableError(component="milvus")


def without_payload(node: Filter, wanted: bool = True) -> Filter:
    """Return the filter with every payload condition decided in favour of letting memories through."""
    match node:
        case AllOf(operands):
            return AllOf(tuple(without_payload(operand, wanted) for operand in operands))
        case AnyOf(operands):
            return AnyOf(tuple(without_payload(operand, wanted) for operand in operands))
        case NoneOf(operands):
            return NoneOf(tuple(without_payload(operand, not wanted) for operand in operands))
        case PayloadCompare():
            return EVERYTHING if wanted else NOTHING
        case _:
            return node


def _key(collection: Collection) -> tuple[str, int, int]:
    return collection.name, collection.epoch, collection.dimension


def _canonical(memory_id: str) -> str:
    if parse_memory_id(memory_id) != memory_id:
        raise ValueError(f"{memory_id!r} is not a canonical memory id")
    return memory_id


def _best(scores: list[tuple[_Stored, float]], limit: int) -> tuple[IndexHit, ...]:
    hits = [IndexHit(found.row.memory.memory_id, score) for found, score in scores]
    hits.sort(key=lambda hit: (-hit.score, hit.memory_id))
    return tuple(hits[:limit])


def _bm25(terms: list[str], candidates: list[_Stored], corpus: list[_Stored]) -> list[tuple[_Stored, float]]:
    """Score by BM25 with the whole collection's statistics, as Milvus does; only rows with a term."""
    if not corpus:
        return []
    mean_length = max(sum(stored.terms.total() for stored in corpus) / len(corpus), 1e-9)
    scores = []
    for found in candidates:
        total = 0.0
        for term, repeated in Counter(terms).items():
            count = found.terms[term]
            if count:
                holders = sum(1 for stored in corpus if term in stored.terms)
                idf = math.log(1 + (len(corpus) - holders + 0.5) / (holders + 0.5))
                norm = _K1 * (1 - _B + _B * found.terms.total() / mean_length)
                total += repeated * idf * count * (_K1 + 1) / (count + norm)
        if total > 0:
            scores.append((found, total))
    return scores

"""Rows that recall read lately, so that one that did not change is named by Postgres and not sent again.

Postgres still decides at every recall which rows there are: what is kept here is used for a row only if the row that
was just found is the very tuple, by its ``xmin``, that was read before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memory_server.ports import StoredVectors
from soma_contract.memory import Memory

DEFAULT_CAPACITY = 160 * 2**20
"""About 20,000 rows of chat: with fewer, recalls in turn over ten tenants of 2,000 memories find nothing kept."""
_OVERHEAD_BYTES = 2_500
"""What the objects of a row take besides its text and arrays."""


@dataclass(slots=True, eq=False)
class KeptRow:
    """A row as of a tuple, and its vectors as of theirs; a mark of 0 is that of no tuple."""

    mark: int
    memory: Memory
    length: int
    term_keys: NDArray[np.int64]
    term_counts: NDArray[np.int32]
    vector_mark: int = 0
    vectors: StoredVectors | None = None
    detailed: bool = False
    """Whether the vectors hold those of sentences and tokens."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        vectors = self.vectors
        arrays = self.term_keys.nbytes + self.term_counts.nbytes
        if vectors is not None:
            arrays += vectors.dense.nbytes + vectors.sentences.nbytes + vectors.tokens.nbytes + vectors.token_ids.nbytes
        return _OVERHEAD_BYTES + arrays + len(self.memory.text) + len(self.memory.payload_json)


Key = tuple[str, str, str]
"""Tenant, embedding profile, memory id."""
Place = tuple[str, str, str, str, int]
"""Tenant, embedding profile, namespace, session, place in it."""


@dataclass(slots=True)
class RowCache:
    """Keeps rows within a number of bytes: two generations, of which the older one goes when the younger is full."""

    capacity_bytes: int = DEFAULT_CAPACITY
    _young: dict[Key, KeptRow] = field(default_factory=dict)
    _old: dict[Key, KeptRow] = field(default_factory=dict)
    _young_places: dict[Place, KeptRow] = field(default_factory=dict)
    _old_places: dict[Place, KeptRow] = field(default_factory=dict)
    _young_bytes: int = 0

    def __iter__(self) -> Iterator[KeptRow]:
        yield from self._young.values()
        yield from self._old.values()

    def get(self, key: Key) -> KeptRow | None:
        """What is kept of a row."""
        kept = self._young.get(key)
        if kept is None and (kept := self._old.pop(key, None)) is not None:
            self._take(key, kept)
        return kept

    def at(self, place: Place) -> KeptRow | None:
        """The row that was last seen in a place of a session."""
        return self._young_places.get(place) or self._old_places.get(place)

    def keep(self, key: Key, row: KeptRow) -> None:
        """Keep a row as it was just read."""
        self._old.pop(key, None)
        self._take(key, row)

    def clear(self) -> None:
        """Forget everything: what answers from now on may not be the server whose tuples these are."""
        for kept in (self._young, self._old, self._young_places, self._old_places):
            kept.clear()
        self._young_bytes = 0

    def _take(self, key: Key, row: KeptRow) -> None:
        if self._young_bytes > self.capacity_bytes // 2:
            self._old, self._young, self._young_bytes = self._young, {}, 0
            self._old_places, self._young_places = self._young_places, {}
        self._young[key] = row
        self._young_bytes += row.size
        memory = row.memory
        if memory.session_id and memory.sequence is not None:
            self._young_places[key[0], key[1], memory.namespace, memory.session_id, memory.sequence] = row

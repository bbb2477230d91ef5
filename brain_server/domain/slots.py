"""The items of one session as arrays: a slot is a place in them, and the key under which it is written down.

Vectors are kept in float16, as they are stored; the float32 form that arithmetic wants is made when it is needed and
dropped by `narrow` when other sessions need the room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from brain_server.domain.item import Item, ItemKind, StoredItem, StoredSalience
from brain_server.domain.salience import Floats, WorkingRules, decayed

_Scalar = TypeVar("_Scalar", bound=np.generic)
_KINDS = {kind.value: kind for kind in ItemKind}
_ITEM_OVERHEAD_BYTES = 400
_ARRAYS_BYTES = 64
_WIDEN = np.arange(65_536, dtype=np.uint16).view(np.float16).astype(np.float32)


class Held:
    """The parts of an item that no arithmetic is done on."""

    __slots__ = ("actor", "item_id", "long_term_id", "payload_json", "promoting", "reward", "terms", "text")

    def __init__(
        self, item_id: str, text: str, payload_json: str, reward: float, long_term_id: str = "", actor: str = ""
    ) -> None:
        self.item_id = item_id
        self.text = text
        self.payload_json = payload_json
        self.reward = reward
        self.long_term_id = long_term_id
        self.actor = actor
        self.promoting = False
        self.terms: frozenset[str] | None = None
        """Keyword terms of the text, found when first asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds, roughly."""
        return _ITEM_OVERHEAD_BYTES + len(self.text) + len(self.payload_json)


class Slots:
    """Arrays of a session's items, empty slots among them; nothing here decides anything."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.changed: set[int] = set()
        """Slots to be written down before anything is acknowledged."""
        self.used: set[int] = set()
        """Slots of which only the salience changed; to be written down soon."""
        self.emptied: set[int] = set()
        """Slots to be removed from what is written down."""
        self.held: list[Held | None] = []
        self.by_id: dict[str, int] = {}
        self.by_long_term: dict[str, int] = {}
        self.kinds = np.zeros(0, np.int8)
        """0 is an empty slot."""
        self.ordinals = np.zeros(0, np.int64)
        self.salience = np.zeros(0)
        self.since = np.zeros(0)
        self.admitted = np.zeros(0)
        self.streaks = np.zeros(0, np.int32)
        self.uses = np.zeros(0, np.int32)
        self.sequences = np.zeros(0, np.int64)
        self.novelties = np.zeros(0)
        self.occurred = np.zeros(0)
        self.narrow_vectors = np.zeros((0, dimensions), np.float16)
        self._wide: NDArray[np.float32] | None = None
        self._text_bytes = 0

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def nbytes(self) -> int:
        """Bytes held when not in use: arrays, texts and an allowance for each item."""
        return self.narrow_vectors.nbytes + _ARRAYS_BYTES * len(self.held) + self._text_bytes

    def vectors(self) -> NDArray[np.float32]:
        """Return all vectors in float32, one row a slot."""
        if self._wide is None:
            self._wide = widened(self.narrow_vectors)
        return self._wide

    def narrow(self) -> None:
        """Drop what can be computed again."""
        self._wide = None

    def faded(self, now_s: float, rules: WorkingRules) -> Floats:
        """Return the salience of every slot now, empty ones at infinity so that they are nobody's least."""
        faded = decayed(self.salience, self.since, now_s, rules)
        faded[self.kinds == 0] = math.inf
        return faded

    def at(self, slot: int) -> Held:
        """Return what is in a slot that is not empty."""
        held = self.held[slot]
        assert held is not None
        return held

    def put(self, slot: int, held: Held, kind: int, ordinal: int, admitted_s: float) -> None:
        """Fill an empty slot, all but its vector and salience."""
        self._hold(slot, held)
        self.kinds[slot] = kind
        self.ordinals[slot] = ordinal
        self.admitted[slot] = admitted_s
        self.streaks[slot] = 0
        self.uses[slot] = 0
        self.emptied.discard(slot)

    def _hold(self, slot: int, held: Held) -> None:
        self.held[slot] = held
        self.by_id[held.item_id] = slot
        if held.long_term_id:
            self.by_long_term[held.long_term_id] = slot
        self._text_bytes += held.nbytes

    def originate(self, slot: int, sequence: int, novelty: float, occurred_s: float) -> None:
        """Set where an item comes from."""
        self.sequences[slot] = sequence
        self.novelties[slot] = novelty
        self.occurred[slot] = occurred_s

    def become(self, slot: int, long_term_id: str) -> None:
        """Set the memory that an item stands for."""
        held = self.at(slot)
        self.by_long_term.pop(held.long_term_id, None)
        self.by_long_term[long_term_id] = slot
        held.long_term_id = long_term_id

    def rewrite(self, slot: int, kind: int, text: str, payload_json: str) -> None:
        """Replace what an item says."""
        held = self.at(slot)
        self._text_bytes -= held.nbytes
        held.text, held.payload_json, held.terms = text, payload_json, None
        self._text_bytes += held.nbytes
        self.kinds[slot] = kind

    def weigh(self, slot: int, salience: float, now_s: float) -> None:
        """Set an item's salience as of now."""
        self.salience[slot] = salience
        self.since[slot] = now_s

    def point(self, slot: int, narrow: NDArray[np.float16], wide: NDArray[np.float32]) -> None:
        """Set an item's vector, given in both forms."""
        self.narrow_vectors[slot] = narrow
        self.vectors()[slot] = wide

    def clear(self, slot: int) -> str:
        """Empty a slot and return the id of the item that was in it."""
        held = self.at(slot)
        self.held[slot] = None
        del self.by_id[held.item_id]
        self.by_long_term.pop(held.long_term_id, None)
        self.kinds[slot] = 0
        self.streaks[slot] = 0
        self._text_bytes -= held.nbytes
        self.changed.discard(slot)
        self.used.discard(slot)
        self.emptied.add(slot)
        return held.item_id

    def least(self, faded: Floats) -> int:
        """Return the slot of the least salient item; of equal ones, the oldest."""
        slot = int(faded.argmin())
        equal = (faded == faded[slot]).nonzero()[0]
        return slot if len(equal) == 1 else int(equal[self.ordinals[equal].argmin()])

    def grow(self, slots: int) -> None:
        """Have at least so many slots."""
        more = slots - len(self.held)
        if more <= 0:
            return
        self.held.extend([None] * more)
        self.kinds = _longer(self.kinds, more)
        self.ordinals = _longer(self.ordinals, more)
        self.salience = _longer(self.salience, more)
        self.since = _longer(self.since, more)
        self.admitted = _longer(self.admitted, more)
        self.streaks = _longer(self.streaks, more)
        self.uses = _longer(self.uses, more)
        self.sequences = _longer(self.sequences, more)
        self.novelties = _longer(self.novelties, more)
        self.occurred = _longer(self.occurred, more)
        self.narrow_vectors = _longer(self.narrow_vectors, more)
        self._wide = None if self._wide is None else _longer(self._wide, more)

    def items(self, slots: Sequence[int], faded: Floats) -> list[Item]:
        """Return the items of slots as others see them, given the salience of every slot now."""
        # Column by column: reading single elements of ten arrays costs more than all the rest of a recall.
        wanted = np.array(slots, np.intp)
        return [
            Item(
                item_id=(held := self.at(slot)).item_id,
                kind=_KINDS[kind],
                text=held.text,
                payload_json=held.payload_json,
                reward=held.reward,
                salience=salience,
                ordinal=ordinal,
                admitted_s=admitted,
                long_term_id=held.long_term_id,
                sequence=sequence,
                novelty=novelty,
                uses=uses,
                used_s=since,
                streak=streak,
                actor=held.actor,
                occurred_s=occurred,
            )
            for slot, kind, salience, ordinal, admitted, sequence, novelty, uses, since, streak, occurred in zip(
                slots,
                self.kinds[wanted].tolist(),
                faded[wanted].tolist(),
                self.ordinals[wanted].tolist(),
                self.admitted[wanted].tolist(),
                self.sequences[wanted].tolist(),
                self.novelties[wanted].tolist(),
                self.uses[wanted].tolist(),
                self.since[wanted].tolist(),
                self.streaks[wanted].tolist(),
                self.occurred[wanted].tolist(),
                strict=True,
            )
        ]

    def stored(self, slots: Iterable[int]) -> list[StoredItem]:
        """Return slots as they are written down."""
        return [
            StoredItem(
                slot=slot,
                item_id=(held := self.at(slot)).item_id,
                kind=int(self.kinds[slot]),
                text=held.text,
                payload_json=held.payload_json,
                reward=held.reward,
                ordinal=int(self.ordinals[slot]),
                admitted_s=float(self.admitted[slot]),
                salience=float(self.salience[slot]),
                salience_s=float(self.since[slot]),
                long_term_id=held.long_term_id,
                vector=self.narrow_vectors[slot].tobytes(),
                sequence=int(self.sequences[slot]),
                novelty=float(self.novelties[slot]),
                uses=int(self.uses[slot]),
                actor=held.actor,
                occurred_s=float(self.occurred[slot]),
            )
            for slot in slots
        ]

    def stored_salience(self, slots: Iterable[int]) -> list[StoredSalience]:
        """Return the salience of slots as it is written down."""
        return [
            StoredSalience(slot, float(self.salience[slot]), float(self.since[slot]), int(self.uses[slot]))
            for slot in slots
        ]

    def restore(self, items: tuple[StoredItem, ...]) -> None:
        """Fill empty slots with what was written down."""
        if not items:
            return
        self.grow(max(item.slot for item in items) + 1)
        slots = np.array([item.slot for item in items], np.intp)
        vectors = np.frombuffer(b"".join(item.vector for item in items), np.float16)
        self.narrow_vectors[slots] = vectors.reshape(len(slots), self.dimensions)
        # Column by column: setting single elements costs four times as much.
        for column, values in (
            (self.kinds, [item.kind for item in items]),
            (self.ordinals, [item.ordinal for item in items]),
            (self.salience, [item.salience for item in items]),
            (self.since, [item.salience_s for item in items]),
            (self.admitted, [item.admitted_s for item in items]),
            (self.uses, [item.uses for item in items]),
            (self.sequences, [item.sequence for item in items]),
            (self.novelties, [item.novelty for item in items]),
            (self.occurred, [item.occurred_s for item in items]),
        ):
            column[slots] = values
        for item in items:
            held = Held(item.item_id, item.text, item.payload_json, item.reward, item.long_term_id, item.actor)
            self._hold(item.slot, held)


def _longer(array: NDArray[_Scalar], more: int) -> NDArray[_Scalar]:
    """Return an array with more rows, all zero; `np.pad` takes ten times as long."""
    longer = np.zeros((len(array) + more, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def widened(narrow: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the same values in float32."""
    # A table of all 65,536 values is faster than the conversion on processors without half-precision instructions.
    wide: NDArray[np.float32] = _WIDEN.take(narrow.view(np.uint16))
    return wide

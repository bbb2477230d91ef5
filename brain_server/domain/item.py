"""What working memory is made of: observations that come in, items that stay for a while."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class ItemKind(IntEnum):
    """What an agent reports; only items of the same kind can be duplicates of each other."""

    OBSERVATION = 1
    THOUGHT = 2
    ACTION = 3
    RESULT = 4


@dataclass(frozen=True, slots=True)
class Observation:
    """One message of an agent, embedded."""

    kind: ItemKind
    text: str
    vector: Vector
    """Of the tenant's embedding profile; any length but zero, it is normalised here."""
    reward: float = 0.0
    """In [0, 1]."""
    payload_json: str = ""
    sequence: int = 0
    """Place in the session's stream, from 1; a number not above the last one taken is a repetition. 0: none."""
    item_id: str = ""
    """Empty: a new item, unless it is a near duplicate."""
    long_term_id: str = ""
    """The memory that it repeats, if it came from one."""
    actor: str = ""
    occurred_s: float = 0.0
    """Unix seconds at which it happened; 0 is now."""


class Verdict(IntEnum):
    """What became of an observation."""

    ADMITTED = 1
    REFRESHED = 2
    """It is an item already there, by id or by likeness, which was renewed."""
    IGNORED = 3
    """Neither new nor rewarding enough to stay."""
    REPEATED = 4
    """It was taken before."""


class Observed(NamedTuple):
    """The answer to one observation."""

    verdict: Verdict
    item_id: str
    """Of the item it became or renewed; empty if neither."""
    salience: float
    novelty: float
    evicted: str = ""
    """Id of the item that had to go."""


class Item(NamedTuple):
    """One item of working memory as others see it."""

    item_id: str
    kind: ItemKind
    text: str
    payload_json: str
    reward: float
    salience: float
    """At the moment of asking."""
    ordinal: int
    """Order of admission in its session."""
    admitted_s: float
    """Unix seconds."""
    long_term_id: str
    """The memory it was promoted to or came from, or empty."""
    sequence: int = 0
    """Number of the observation that made it."""
    novelty: float = 0.0
    """When it was admitted."""
    uses: int = 0
    """Times it was recalled or renewed."""
    used_s: float = 0.0
    """Unix seconds of the last time; of its admission at first."""
    streak: int = 0
    """Ticks in a row that it has been salient enough for promotion."""
    actor: str = ""
    occurred_s: float = 0.0
    """Unix seconds."""


class Recalled(NamedTuple):
    """An item that answers a query."""

    item: Item
    score: float
    cosine: float
    keyword: float
    """Share of the query's terms it holds, rarer ones counting more; 0 without terms."""


class Promotion(NamedTuple):
    """An item that has earned a place in long-term memory, and why."""

    item: Item
    reason: str


class StoredItem(NamedTuple):
    """One slot of a session as it is written down."""

    slot: int
    item_id: str
    kind: int
    text: str
    payload_json: str
    reward: float
    ordinal: int
    admitted_s: float
    salience: float
    salience_s: float
    """Unix seconds at which `salience` was its salience."""
    long_term_id: str
    vector: bytes
    """float16, little-endian."""
    sequence: int = 0
    novelty: float = 0.0
    uses: int = 0
    actor: str = ""
    occurred_s: float = 0.0


class StoredSalience(NamedTuple):
    """The part of a slot that changes with use."""

    slot: int
    salience: float
    salience_s: float
    uses: int = 0


@dataclass(frozen=True, slots=True)
class SessionState:
    """A whole session as it is written down: what a snapshot is and what a restart reads."""

    session_id: str
    last_sequence: int
    touched_s: float
    items: tuple[StoredItem, ...]
    persona_id: str = ""
    """Whose memories promoted items become."""
    epoch: int = 0
    """Under which the memory server holds the session for this brain; 0 is not at all yet."""

"""Snapshots of working memory, opaque here: who owns a session, and which of two snapshots is newer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session's working memory as a brain left it.

    ``epoch`` grows with every take-over, ``version`` with every save of one epoch.  ``content`` is the brain's own
    encoding, empty in lists; ``saved_at`` is None until it is kept.
    """

    session_id: str
    brain_id: str
    version: int
    epoch: int = 1
    persona_id: str = ""
    sequence: int = 0
    item_count: int = 0
    omitted_items: int = 0
    content_format: str = ""
    content: bytes = b""
    saved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """Whether a snapshot is held now, and the epoch and version that are."""

    saved: bool
    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class SnapshotListing:
    """One page of snapshots, by session id; empty strings and None select all."""

    limit: int
    after: str = ""
    brain_id: str = ""
    persona_id: str = ""
    saved_after: datetime | None = None


def replaces(new: Snapshot, held: Snapshot) -> bool:
    """Whether a snapshot takes the place of the one held: newer, and from the owner or from a later epoch."""
    if new.epoch == held.epoch and new.brain_id != held.brain_id:
        return False
    return (new.epoch, new.version) > (held.epoch, held.version)


def is_held(new: Snapshot, held: Snapshot) -> bool:
    """Whether it is this very snapshot that is held."""
    return (new.brain_id, new.epoch, new.version) == (held.brain_id, held.epoch, held.version)


def taken_over(held: Snapshot, brain_id: str) -> Snapshot:
    """The snapshot with another owner under a new epoch; its owner keeps its epoch."""
    return held if held.brain_id == brain_id else replace(held, brain_id=brain_id, epoch=held.epoch + 1)

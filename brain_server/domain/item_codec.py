"""Items and sessions as bytes: what is encrypted into the brain's file, and the snapshots for other brains."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from brain_server.domain.item import SessionState, StoredItem

SNAPSHOT_FORMAT = "soma-wm/1"

_FORM = 2
_ITEM = struct.Struct("<BBdqdqddHHII")
_STATE = struct.Struct("<IddIHI")
"""Of each item in a snapshot, before its body: slot, salience, its time, uses, and two sizes."""
_FAST = 1
"""Compression level: half of a snapshot is vectors, which no level makes much smaller."""


def packed(item: StoredItem) -> bytes:
    """Return an item without its slot and what changes with use."""
    parts = (item.item_id.encode(), item.actor.encode(), item.text.encode(), item.payload_json.encode())
    head = _ITEM.pack(
        _FORM,
        item.kind,
        item.reward,
        item.ordinal,
        item.admitted_s,
        item.sequence,
        item.novelty,
        item.occurred_s,
        *map(len, parts),
    )
    return b"".join((head, *parts, item.vector))


def unpacked(plain: bytes, slot: int, salience: float, salience_s: float, uses: int, long_term_id: str) -> StoredItem:
    """Return the item again; raises ValueError for a form this brain does not read."""
    form, kind, reward, ordinal, admitted_s, sequence, novelty, occurred_s, *sizes = _ITEM.unpack_from(plain)
    if form != _FORM:
        raise ValueError(f"a working memory row has form {form}, this brain reads {_FORM}")
    texts = []
    at = _ITEM.size
    for size in sizes:
        texts.append(plain[at : at + size].decode())
        at += size
    item_id, actor, text, payload_json = texts
    return StoredItem(
        slot=slot,
        item_id=item_id,
        kind=kind,
        text=text,
        payload_json=payload_json,
        reward=reward,
        ordinal=ordinal,
        admitted_s=admitted_s,
        salience=salience,
        salience_s=salience_s,
        long_term_id=long_term_id,
        vector=plain[at:],
        sequence=sequence,
        novelty=novelty,
        uses=uses,
        actor=actor,
        occurred_s=occurred_s,
    )


def snapshot_of(state: SessionState, most_bytes: int) -> tuple[bytes, int]:
    """Return a session's items in at most so many bytes, and how many of the least salient were left out."""
    items = sorted(state.items, key=lambda item: (-item.salience, item.ordinal))
    kept = len(items)
    while True:
        content = _compressed(sorted(items[:kept], key=lambda item: item.ordinal))
        if len(content) <= most_bytes:
            return content, len(items) - kept
        # Sizes differ wildly: a few texts of 128 KiB may stand among many short ones.
        kept = min(kept - 1, kept * most_bytes // len(content))


def items_of(content: bytes) -> tuple[StoredItem, ...]:
    """Return the items of a snapshot; raises ValueError if it is none."""
    items = []
    try:
        plain = zlib.decompress(content)
        at = 0
        while at < len(plain):
            slot, salience, salience_s, uses, id_size, size = _STATE.unpack_from(plain, at)
            at += _STATE.size
            long_term_id = plain[at : at + id_size].decode()
            at += id_size
            items.append(unpacked(plain[at : at + size], slot, salience, salience_s, uses, long_term_id))
            at += size
    except (zlib.error, struct.error) as error:
        raise ValueError("this is no snapshot of a session") from error
    return tuple(items)


def _compressed(items: Sequence[StoredItem]) -> bytes:
    parts = []
    for item in items:
        body, long_term_id = packed(item), item.long_term_id.encode()
        head = _STATE.pack(item.slot, item.salience, item.salience_s, item.uses, len(long_term_id), len(body))
        parts += [head, long_term_id, body]
    return zlib.compress(b"".join(parts), _FAST)

"""The verb *export*: a snapshot in frames, each with a cursor that resumes after it.

What it promises: a stream that is not cut gives the state of one revision.  A stream resumed from a cursor gives the
rest as of the moment it is resumed; while the tenant has not changed that is the same state, otherwise every record
is as of some revision between the two.  In both cases all frames name the first revision, and watching from there
leads to the tenant's current state.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator
from dataclasses import dataclass

from memory_server.bulk_ports import ExportSource, Snapshot
from memory_server.domain.exports import Export, ExportFrame
from soma_contract.errors import CursorInvalidError
from soma_contract.limits import LIMITS
from soma_contract.links import LinkKey
from soma_contract.tenant import Tenant

FRAME_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where an export stands: the revision it began at, and the last memory or link sent."""

    revision: int
    memory_id: str = ""
    link: LinkKey | None = None
    memories_done: bool = False


@dataclass(frozen=True, slots=True)
class Exporting:
    """Reads everything that matches, in memory that does not grow."""

    source: ExportSource

    async def export(self, tenant: Tenant, export: Export, cursor: str = "") -> AsyncIterator[ExportFrame]:
        """Yield frames of at most 1,000 records and about 1 MiB; the last one may be empty, and is then the only one.

        Raises CursorInvalidError for a cursor of another tenant or export, OverloadedError.
        """
        bound = _fingerprint(tenant, export)
        start = _parsed(cursor, bound) if cursor else None
        async with self.source.snapshot(tenant) as snapshot:
            at = start or Cursor(snapshot.revision)
            sent = False
            async for frame in _frames(snapshot, export, at, bound):
                sent = True
                yield frame
            if not sent:
                yield ExportFrame((), _written(at, bound), at.revision)


async def _frames(snapshot: Snapshot, export: Export, at: Cursor, bound: str) -> AsyncIterator[ExportFrame]:
    while not at.memories_done:
        memories = await snapshot.memories(
            export.filter,
            after=at.memory_id,
            embeddings=export.embeddings,
            limit=LIMITS.chunk_records,
            size=FRAME_BYTES,
        )
        if not memories:
            break
        at = Cursor(at.revision, memories[-1].memory_id)
        yield ExportFrame(tuple(memories), _written(at, bound), at.revision)
    if not export.links:
        return
    while True:
        links = await snapshot.links(export.filter, after=at.link, limit=LIMITS.chunk_records)
        if not links:
            return
        at = Cursor(at.revision, at.memory_id, links[-1].key, memories_done=True)
        yield ExportFrame(tuple(links), _written(at, bound), at.revision)


def _fingerprint(tenant: Tenant, export: Export) -> str:
    """Bind a cursor to its tenant and export, so that it opens no other."""
    named = f"{tenant.name}\0{export.filter!r}\0{export.embeddings}\0{export.links}"
    return hashlib.blake2b(named.encode(), digest_size=12, person=b"soma-export").hexdigest()


def _written(at: Cursor, bound: str) -> str:
    parts = [bound, at.revision, at.memory_id, list(at.link) if at.link else [], at.memories_done]
    return urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _parsed(cursor: str, bound: str) -> Cursor:
    try:
        told, revision, memory_id, link, memories_done = json.loads(
            urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        )
        at = Cursor(int(revision), str(memory_id), LinkKey(*map(str, link)) if link else None, bool(memories_done))
    except (ValueError, Base64Error, TypeError):
        raise CursorInvalidError from None
    if told != bound:
        raise CursorInvalidError
    return at

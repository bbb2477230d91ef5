"""The verb *read*: by id, key or coordinate, in lists and by version."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memory_server.ports import Cache, Journal, Listing, MemoryPage
from soma_contract.errors import MemoryNotFoundError, PageTokenInvalidError, SomaError, UnavailableError
from soma_contract.memory import Memory, Target, View
from soma_contract.recall import Hit
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads memories from the truth; the cache answers only while the truth is away and on request."""

    journal: Journal
    cache: Cache

    async def get(
        self,
        tenant: Tenant,
        target: Target,
        *,
        as_of: datetime | None = None,
        allow_degraded: bool = False,
        view: View = View.BASIC,
    ) -> tuple[Memory, bool]:
        """Return a memory and whether it came from the cache.  Raises MemoryNotFoundError."""
        try:
            (memory,) = await self.journal.get(tenant, [target], as_of=as_of, view=view)
        except UnavailableError:
            if not allow_degraded or as_of is not None:
                raise
            kept = await self.cache.get_memory(tenant, target)
            if kept is None:
                raise
            return kept, True
        if memory is None:
            raise not_found(target)
        return memory, False

    async def get_many(
        self, tenant: Tenant, targets: Sequence[Target], *, view: View = View.BASIC
    ) -> list[Memory | None]:
        """Return memories in the order of the targets, None for the missing."""
        return await self.journal.get(tenant, targets, view=view)

    async def list_memories(self, tenant: Tenant, listing: Listing, page_token: str) -> tuple[MemoryPage, str]:
        """Return a page and the token of the next one; for a page that is cut short, `token_after` is its token.

        Raises PageTokenInvalidError for a token that was not made for the same tenant and listing.
        """
        fingerprint = _fingerprint(tenant, listing)
        if page_token:
            listing = replace(listing, after=_after(page_token, fingerprint))
        page = await self.journal.list_memories(tenant, listing)
        token = _token(page.next_after, fingerprint) if page.next_after else ""
        return page, token

    @staticmethod
    def token_after(tenant: Tenant, listing: Listing, last: Memory) -> str:
        """The token of the page after one that was cut short behind this memory."""
        return _token(listing.end(last), _fingerprint(tenant, listing))

    async def history(self, tenant: Tenant, memory_id: str, *, before_version: int | None, limit: int) -> list[Memory]:
        """Return the kept versions, newest first.  Raises MemoryNotFoundError when there are none."""
        versions = await self.journal.history(tenant, memory_id, before_version=before_version, limit=limit)
        if not versions and before_version is None:
            raise MemoryNotFoundError(memory_id=memory_id)
        return versions


async def with_embeddings(journal: Journal, tenant: Tenant, hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
    """Hits as they are, and the embeddings that the truth has for them."""
    ids = [Target(memory_id=hit.memory.memory_id) for hit in hits]
    full = await journal.get(tenant, ids, view=View.FULL)
    return tuple(
        replace(hit, memory=replace(hit.memory, embedding=memory.embedding, embedding_model=memory.embedding_model))
        if memory is not None and memory.version == hit.memory.version
        else hit
        for hit, memory in zip(hits, full, strict=True)
    )


def not_found(target: Target) -> SomaError:
    """The error for a target that does not exist, or is another tenant's: the same answer."""
    if target.memory_id:
        return MemoryNotFoundError(memory_id=target.memory_id)
    if target.key:
        return MemoryNotFoundError(namespace=target.namespace, key=target.key)
    return MemoryNotFoundError(namespace=target.namespace)


def _fingerprint(tenant: Tenant, listing: Listing) -> str:
    """Bind a token to its tenant and listing, so that it opens no other list."""
    named = f"{tenant.name}\0{listing.filter!r}\0{listing.order}\0{listing.descending}"
    return hashlib.blake2b(named.encode(), digest_size=12, person=b"soma-page").hexdigest()


def _token(after: tuple[str, ...], fingerprint: str) -> str:
    return urlsafe_b64encode(json.dumps([fingerprint, *after]).encode()).decode().rstrip("=")


def _after(token: str, fingerprint: str) -> tuple[str, ...]:
    try:
        bound, *after = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, Base64Error, TypeError):
        raise PageTokenInvalidError from None
    if bound != fingerprint or not all(isinstance(part, str) for part in after):
        raise PageTokenInvalidError
    return tuple(after)

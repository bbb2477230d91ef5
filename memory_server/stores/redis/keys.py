"""The one place where cache keys are made, and values are bound to them."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

from soma_contract.memory import Coordinate
from soma_contract.tenant import Tenant

PREFIX: Final = "soma:1"
"""Grows with every change of what values look like: old ones are never read again and expire."""

BINDING_BYTES: Final = 16


def memory_cache_key(tenant: Tenant, memory_id: str) -> bytes:
    """Return the key of a memory or its tombstone."""
    return _key(tenant, "m", memory_id.encode())


def name_cache_key(tenant: Tenant, namespace: str, name: str) -> bytes:
    """Return the key under which the id of the memory with this key is found."""
    return _key(tenant, "k", namespace.encode(), name.encode("utf-8", "surrogatepass"))


def coordinate_cache_key(tenant: Tenant, namespace: str, coordinate: Coordinate) -> bytes:
    """Return the key under which the id of the memory at this coordinate is found."""
    # Adding zero makes the negative zero the same place as zero.
    return _key(tenant, "c", namespace.encode(), struct.pack("<3d", *(axis + 0.0 for axis in coordinate)))


def embedding_cache_key(content_key: bytes) -> bytes:
    """Return the key of an embedding; it belongs to a content and a model, not to a tenant."""
    return _key(None, "e", content_key)


def tenant_pattern(tenant: Tenant) -> str:
    """Return the pattern of all keys of a tenant; tenant names hold no wildcard and no colon."""
    return f"{PREFIX}:t:{tenant.name}:*"


def bound(key: bytes, value: bytes) -> bytes:
    """Return the value with its key's digest before it, so that it is worth nothing under another key."""
    return binding(key) + value


def unbound(key: bytes, value: bytes | None) -> bytes | None:
    """Return the value, or None when there is none or it was bound to another key."""
    if value is None or value[:BINDING_BYTES] != binding(key):
        return None
    return value[BINDING_BYTES:]


def binding(key: bytes) -> bytes:
    """Return the digest of a full key that its value starts with."""
    return blake2b(key, digest_size=BINDING_BYTES, person=b"soma-cache").digest()


def _key(tenant: Tenant | None, kind: str, *parts: bytes) -> bytes:
    owner = "shared" if tenant is None else f"t:{tenant.name}"
    digest = blake2b(digest_size=20)
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return f"{PREFIX}:{owner}:{kind}:{digest.hexdigest()}".encode()

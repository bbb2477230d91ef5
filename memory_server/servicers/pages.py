"""Tokens that open the next page."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

from soma_contract.errors import PageTokenInvalidError
from soma_contract.tenant import Tenant


@dataclass(frozen=True, slots=True)
class HistoryToken:
    """Where a page of versions starts, bound to the tenant and the memory."""

    bound: str
    before: int | None

    @classmethod
    def parse(cls, token: str, tenant: Tenant, memory_id: str) -> HistoryToken:
        """Read a token; empty is the first page.  Raises PageTokenInvalidError."""
        named = f"{tenant.name}\0{memory_id}"
        bound = hashlib.blake2b(named.encode(), digest_size=12, person=b"soma-history").hexdigest()
        if not token:
            return cls(bound, None)
        try:
            told, before = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except (ValueError, Base64Error, TypeError):
            raise PageTokenInvalidError from None
        if told != bound or not isinstance(before, int) or before < 1:
            raise PageTokenInvalidError
        return cls(bound, before)

    def following(self, last_version: int) -> str:
        """The token of the page after one that ended with this version."""
        return urlsafe_b64encode(json.dumps([self.bound, last_version]).encode()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class RefusalToken:
    """Where a page of refusals starts, bound to the tenant and the job."""

    bound: str
    after: int

    @classmethod
    def parse(cls, token: str, tenant: Tenant, import_id: str) -> RefusalToken:
        """Read a token; empty is the first page.  Raises PageTokenInvalidError."""
        named = f"{tenant.name}\0{import_id}"
        bound = hashlib.blake2b(named.encode(), digest_size=12, person=b"soma-refusals").hexdigest()
        if not token:
            return cls(bound, -1)
        try:
            told, after = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except (ValueError, Base64Error, TypeError):
            raise PageTokenInvalidError from None
        if told != bound or not isinstance(after, int) or after < 0:
            raise PageTokenInvalidError
        return cls(bound, after)

    def following(self, last: int) -> str:
        """The token of the page after one that ended with this record."""
        return urlsafe_b64encode(json.dumps([self.bound, last]).encode()).decode().rstrip("=")

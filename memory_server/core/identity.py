"""Who may call: tenants, API keys, JWTs, and the verdict on a credential."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from memory_server.core.answers import Answers, Patience
from memory_server.ports import Clock, KeyRecord, Registry, TenantChange, TenantRecord
from soma_contract.errors import (
    CredentialsExpiredError,
    CredentialsInvalidError,
    FieldViolationError,
    KeyNotFoundError,
    TenantExistsError,
    TenantForbiddenError,
    TenantNotFoundError,
    TenantSuspendedError,
    VersionMismatchError,
)
from soma_contract.tenant import ACT_AS, Caller, validated_tenant_name

_KEY = re.compile(r"soma_([a-z0-9]{8,32})_([A-Za-z0-9_-]{32,128})")
ANY_TENANT = "*"
ACTIVE = "active"
SUSPENDED = "suspended"
_SCOPE = re.compile(r"[a-z]+(:([a-z]+|\*))?|\*|act-as")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; the secret is shown this once and kept only as a hash."""

    record: KeyRecord
    token: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Who a bearer is, and until when."""

    caller: Caller
    ends_at: datetime | None = None


class Tokens(Protocol):
    """Tokens of an identity provider."""

    def judge(self, token: str) -> Caller:
        """Return who a token speaks for.  Raises CredentialsInvalidError or CredentialsExpiredError."""
        ...


@dataclass(slots=True)
class Identity:
    """Judges credentials and keeps tenants and keys.

    Verdicts are used unasked for ``patience.fresh_s`` seconds, so a revoked key may answer that much longer; while the
    registry is away, what it said last goes on to hold.
    """

    registry: Registry
    clock: Clock
    tokens: Tokens | None = None
    patience: Patience = field(default_factory=Patience)
    _verdicts: Answers[bytes, _Verdict] = field(init=False)
    _admitted: Answers[str, None] = field(init=False)

    def __post_init__(self) -> None:
        self._verdicts = Answers(self.clock, self.patience)
        self._admitted = Answers(self.clock, self.patience)

    @property
    def fresh_s(self) -> float:
        """How long a verdict is used unasked."""
        return self.patience.fresh_s

    async def authenticate(self, token: str) -> Caller:
        """Return who the bearer of a token is.

        Raises CredentialsInvalidError or CredentialsExpiredError, with nothing that tells whether
        the key id exists; ComponentUnavailableError for an unknown one while the registry is away.
        """
        verdict, stands_in = await self._verdicts.get(secret_hash(token), lambda: self._judge(token))
        if verdict.ends_at is not None and verdict.ends_at <= self.clock.now():
            raise CredentialsExpiredError
        if stands_in and self.tokens is not None and _KEY.fullmatch(token) is None:
            self.tokens.judge(token)  # whose end is written on it
        return verdict.caller

    async def _judge(self, token: str) -> _Verdict:
        match = _KEY.fullmatch(token)
        if match is None:
            if self.tokens is None or token.count(".") != 2:
                raise CredentialsInvalidError
            caller = self.tokens.judge(token)
            return _Verdict(replace(caller, suspended=await self._suspended(caller.tenants)))
        record = await self.registry.get_key(match[1])
        # Compare in any case, so that an unknown id takes as long as a wrong secret.
        expected = record.secret_hash if record else b"\0" * 32
        if not hmac.compare_digest(expected, secret_hash(token)) or record is None:
            raise CredentialsInvalidError
        if record.revoked_at is not None:
            raise CredentialsInvalidError
        if record.expires_at is not None and record.expires_at <= self.clock.now():
            raise CredentialsExpiredError
        return _Verdict(await self._caller(record), record.expires_at)

    async def _caller(self, record: KeyRecord) -> Caller:
        tenants = frozenset(name for name in record.tenants if name != ANY_TENANT)
        return Caller(
            credential_id=record.key_id,
            tenants=tenants,
            scopes=frozenset(record.scopes),
            suspended=await self._suspended(tenants),
        )

    async def _suspended(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the tenants that may not be worked for: suspended, or not there."""
        suspended = set()
        for name in names:
            tenant = await self.registry.get_tenant(name)
            if tenant is None or tenant.state == SUSPENDED:
                suspended.add(name)
        return frozenset(suspended)

    async def admit(self, name: str) -> None:
        """Let a caller that may name any tenant name this one.

        Raises TenantForbiddenError for one that does not exist, TenantSuspendedError.
        """

        async def ask() -> None:
            tenant = await self.registry.get_tenant(name)
            if tenant is None:
                raise TenantForbiddenError
            if tenant.state == SUSPENDED:
                raise TenantSuspendedError

        await self._admitted.get(name, ask)

    async def create_tenant(
        self,
        name: str,
        display_name: str = "",
        *,
        dedicated: bool = False,
        settings: TenantChange | None = None,
        request_id: str = "",
    ) -> TenantRecord:
        """Create a tenant.

        Raises FieldViolationError for a bad name, TenantExistsError for one that another request has taken.
        """
        return await self.registry.create_tenant(
            validated_tenant_name(name, "tenant_id"),
            display_name,
            dedicated=dedicated,
            settings=settings,
            request_id=request_id,
        )

    async def change_tenant(self, name: str, change: TenantChange, if_match: int | None = None) -> TenantRecord:
        """Change a tenant; this process heeds it at once.  Raises TenantNotFoundError, VersionMismatchError."""
        changed = await self.registry.change_tenant(name, change, if_match)
        if changed is None:
            actual = (await self.get_tenant(name)).version
            raise VersionMismatchError(
                "the tenant is at another version than if_match says; read it again and redo the change",
                memory_id="",
                expected=str(if_match),
                actual=str(actual),
            )
        if change.state is not None:
            self._admitted.forget_all()
            self._verdicts.forget(lambda verdict: name in verdict.caller.tenants)
        return changed

    async def get_tenant(self, name: str) -> TenantRecord:
        """Read a tenant.  Raises TenantNotFoundError."""
        tenant = await self.registry.get_tenant(name)
        if tenant is None:
            raise TenantNotFoundError(tenant=name)
        return tenant

    async def create_key(
        self,
        tenants: Sequence[str],
        scopes: Sequence[str],
        *,
        label: str = "",
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make a key for existing tenants.

        Raises TenantNotFoundError, and FieldViolationError for unknown scopes or for act-as, which
        only the bootstrap file can give.
        """
        if not tenants:
            raise FieldViolationError.at("tenant_ids", "name at least one tenant")
        for name in tenants:
            await self.get_tenant(name)
        for position, scope in enumerate(scopes):
            if not _SCOPE.fullmatch(scope) or scope == ACT_AS:
                raise FieldViolationError.at(f"scopes[{position}]", "is not a scope a key can have")
        key_id = secrets.token_hex(8)
        token = f"soma_{key_id}_{secrets.token_urlsafe(32)}"
        record = KeyRecord(
            key_id=key_id,
            tenants=tuple(tenants),
            scopes=tuple(scopes),
            label=label,
            created_at=self.clock.now(),
            expires_at=expires_at,
            secret_hash=secret_hash(token),
        )
        await self.registry.put_key(record)
        return NewKey(record, token)

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """Revoke a key; this process forgets its verdict at once.  Raises KeyNotFoundError."""
        record = await self.registry.revoke_key(key_id)
        if record is None:
            raise KeyNotFoundError(key_id=key_id)
        self._verdicts.forget(lambda verdict: verdict.caller.credential_id == key_id)
        return record

    async def bootstrap(self, entries: str) -> None:
        """Register keys given as a JSON list, and the tenants they name; again it changes nothing."""
        for entry in json.loads(entries):
            match = _KEY.fullmatch(entry["key"])
            if match is None:
                raise ValueError("a bootstrap key is not of the form soma_<id>_<secret>")
            await self._ensure_tenants(entry["tenants"])
            await self.registry.put_key(
                KeyRecord(
                    key_id=match[1],
                    tenants=tuple(entry["tenants"]),
                    scopes=tuple(entry["scopes"]),
                    label=entry.get("label", "bootstrap"),
                    created_at=self.clock.now(),
                    secret_hash=secret_hash(entry["key"]),
                )
            )
            # Known from now on, also if the registry goes away before the key is first used.
            await self.authenticate(entry["key"])

    async def _ensure_tenants(self, names: Iterable[str]) -> None:
        for name in names:
            if name == ANY_TENANT:
                continue
            try:
                await self.create_tenant(name)
            except TenantExistsError:
                continue


def secret_hash(token: str) -> bytes:
    """Hash of a whole token; its secret has 256 random bits, so no slow hash is needed."""
    return hashlib.blake2b(token.encode(), digest_size=32, person=b"soma-api-key").digest()

"""The tenant as a type, and the caller it is taken from.

A store asks for a ``Tenant``, and a ``Tenant`` cannot be written down: it comes out of an authenticated call
(``rpckit`` makes it) or out of ``admin_tenant``, which says in the code why there is no caller. So a forgotten
tenant is a type error, and a tenant picked from a request's body cannot happen by accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from soma_contract.errors import FieldViolationError, ScopeMissingError

TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""What a tenant may be called: 1–63 characters, lower case."""

ACT_AS = "act-as"
"""The scope of a service credential that may name any tenant. No wildcard implies it."""


def is_tenant_name(name: str) -> bool:
    """Whether a tenant may be called this."""
    return TENANT_NAME.fullmatch(name) is not None


def validated_tenant_name(name: str, field: str = "tenant") -> str:
    """The name itself, or FieldViolationError on ``field``."""
    if not is_tenant_name(name):
        raise FieldViolationError.at(
            field, "must be 1-63 characters of a-z, 0-9, '.', '_' and '-', the first a letter or digit"
        )
    return name


@dataclass(frozen=True, slots=True, init=False)
class Tenant:
    """A tenant on whose behalf work may be done; equal and hashable by name."""

    name: str

    def __init__(self) -> None:
        raise TypeError("a Tenant comes from an authenticated call or from admin_tenant(name, reason=…)")

    @classmethod
    def _authenticated(cls, name: str) -> Self:
        # For rpckit's tenant interceptor, which has checked that the caller may act for this tenant.
        tenant = object.__new__(cls)
        object.__setattr__(tenant, "name", validated_tenant_name(name))
        return tenant

    def __str__(self) -> str:
        return self.name


def admin_tenant(name: str, *, reason: str) -> Tenant:
    """A tenant without a caller, for workers, migrations and administration; ``reason`` says which, for the reader."""
    if not reason:
        raise ValueError("say why this code may act for a tenant without a caller")
    return Tenant._authenticated(name)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: what the authenticator found out about a credential. It holds no secret."""

    credential_id: str
    tenants: frozenset[str]
    scopes: frozenset[str] = frozenset()
    namespaces: tuple[str, ...] = ()
    """Namespaces the credential is confined to: exact names, or prefixes ending in ``*``. Empty means all."""
    suspended: frozenset[str] = frozenset()
    """Those of ``tenants`` that are suspended."""

    @property
    def may_act_as(self) -> bool:
        """Whether the credential may name any tenant."""
        return ACT_AS in self.scopes

    def has_scope(self, scope: str) -> bool:
        """Whether the credential has ``area:verb``, its ``area:*`` or ``*``; ``act-as`` only by name."""
        if scope in self.scopes:
            return True
        if scope == ACT_AS:
            return False
        area = scope.partition(":")[0]
        return f"{area}:*" in self.scopes or "*" in self.scopes

    def require_scope(self, scope: str) -> None:
        """Raise ScopeMissingError unless the credential has the scope."""
        if not self.has_scope(scope):
            raise ScopeMissingError(scope=scope)

    def may_use_namespace(self, namespace: str) -> bool:
        """Whether the credential reaches this namespace."""
        return not self.namespaces or any(_matches(rule, namespace) for rule in self.namespaces)

    def require_namespaces(self, namespaces: Iterable[str]) -> None:
        """Raise ScopeMissingError unless the credential reaches all of these."""
        for namespace in namespaces:
            if not self.may_use_namespace(namespace):
                raise ScopeMissingError(
                    "these credentials are confined to other namespaces; use a key that reaches this one",
                    scope=f"namespace:{namespace}",
                )


def _matches(rule: str, namespace: str) -> bool:
    return namespace.startswith(rule[:-1]) if rule.endswith("*") else namespace == rule

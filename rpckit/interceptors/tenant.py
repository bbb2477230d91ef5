"""For whom: exactly one of the caller's tenants. The first wall between tenants, and the only maker of a ``Tenant``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from rpckit.call import CallContext, enter_call
from rpckit.layer import Call
from soma_contract.errors import TenantForbiddenError, TenantSuspendedError
from soma_contract.tenant import Caller, Tenant


class Tenants(Protocol):
    """Knows which tenants may be worked for; asked when a caller may name any."""

    async def admit(self, name: str) -> None:
        """Raises TenantSuspendedError, or TenantForbiddenError for a tenant that does not exist."""


class TenantBinding:
    """Binds the call to its tenant before anything is looked at, so a refusal tells nothing of what exists."""

    name = "tenant"

    def __init__(self, tenantless: Sequence[str] = (), tenants: Tenants | None = None) -> None:
        """``tenantless``: path prefixes (``/soma.admin.v1.``) of methods that may be called for no tenant."""
        self._tenantless = tuple(tenantless)
        self._tenants = tenants

    async def enter(self, call: Call) -> None:
        """Raises TenantForbiddenError, TenantSuspendedError or ScopeMissingError."""
        caller, received = call.caller, call.received
        if caller is None:
            return
        name = _chosen(caller, received.tenant)
        if name is None:
            if not call.method.path.startswith(self._tenantless):
                raise TenantForbiddenError(
                    "these credentials reach several tenants or none; name one of theirs in 'soma-tenant'"
                )
        elif name in caller.suspended:
            raise TenantSuspendedError
        elif self._tenants is not None and name not in caller.tenants:
            await self._tenants.admit(name)
        if received.namespace:
            caller.require_namespaces((received.namespace,))
        before = call.context
        call.context = CallContext(
            method=before.method,
            request_id=before.request_id,
            deadline=before.deadline,
            trace=before.trace,
            persona=received.persona,
            session=received.session,
            namespace=received.namespace,
            caller=caller,
            tenant=None if name is None else _tenant(name),
            # Only a server of ours may say where a write began; from anybody else the claim is dropped.
            origin=received.origin if caller.may_act_as else None,
        )
        enter_call(call.context)

    def leave(self, call: Call) -> None:
        pass


@lru_cache(maxsize=4096)
def _tenant(name: str) -> Tenant:
    return Tenant._authenticated(name)


def _chosen(caller: Caller, named: str | None) -> str | None:
    if named is not None:
        if named not in caller.tenants and not caller.may_act_as:
            raise TenantForbiddenError
        return named
    if len(caller.tenants) == 1 and not caller.may_act_as:
        return next(iter(caller.tenants))
    return None

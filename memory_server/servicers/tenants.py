"""TenantService: tenants, keys, and the brain's question who a bearer is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from memory_server.core.identity import ACTIVE, SUSPENDED, Identity
from memory_server.core.tenant_policies import Policies
from memory_server.ports import KeyRecord, TenantChange, TenantRecord
from rpckit.call import current_caller, current_tenant
from soma.admin.v1 import tenant_service_pb2 as pb
from soma.admin.v1 import tenant_service_pb2_grpc as rpc
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import REQUEST_ID_BYTES, timestamp
from soma_contract.errors import (
    CredentialsExpiredError,
    CredentialsInvalidError,
    FieldViolationError,
    KeyNotFoundError,
    ScopeMissingError,
    TenantForbiddenError,
)
from soma_contract.scopes import AGENT_SCOPES, OPERATOR
from soma_contract.tenant import ACT_AS, is_tenant_name

USABLE_S = 86_400
LABELS = 64
SETTINGS = ("display_name", "labels", "scorer", "recall_weights")
"""What can be changed about a tenant."""
_STATES = {
    "active": pb.TENANT_STATE_ACTIVE,
    "suspended": pb.TENANT_STATE_SUSPENDED,
    "deleting": pb.TENANT_STATE_DELETING,
    "deleted": pb.TENANT_STATE_DELETED,
}


class TenantServicer(rpc.TenantServiceServicer):
    """Tenants and keys for administrators; Authenticate for brains."""

    def __init__(self, identity: Identity, policies: Policies) -> None:
        self._identity = identity
        self._policies = policies

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Any) -> pb.CreateTenantResponse:
        checks = Checks()
        name = _tenant_name(request.tenant.tenant, checks, "tenant.tenant")
        request_id = checks.text("request_id", request.request_id, REQUEST_ID_BYTES)
        settings = settings_from_pb(request.tenant, SETTINGS, checks)
        _refuse_unserved(request.tenant, checks)
        checks.done()
        self._policies.check(settings.recall_weights, settings.scorer)
        tenant = await self._identity.create_tenant(
            name,
            settings.display_name or "",
            dedicated=request.tenant.dedicated,
            settings=settings,
            request_id=request_id,
        )
        return pb.CreateTenantResponse(tenant=tenant_to_pb(tenant))

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Any) -> pb.UpdateTenantResponse:
        name = _reached(request.tenant.tenant)
        checks = Checks()
        paths = list(request.update_mask.paths)
        if not paths:
            checks.fail("update_mask", f"name the fields to change, of {', '.join(SETTINGS)}")
        for position, path in enumerate(paths):
            if path not in SETTINGS:
                checks.fail(f"update_mask.paths[{position}]", f"is none of {', '.join(SETTINGS)}")
        if_match = None
        if request.HasField("if_match"):
            if_match = request.if_match
            if if_match < 1:
                checks.fail("if_match", "must be a version, 1 or more")
        change = settings_from_pb(request.tenant, paths, checks)
        checks.done()
        self._policies.check(change.recall_weights, change.scorer)
        tenant = await self._identity.change_tenant(name, change, if_match)
        self._policies.forget()
        return pb.UpdateTenantResponse(tenant=tenant_to_pb(tenant))

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, context: Any) -> pb.SuspendTenantResponse:
        checks = Checks()
        cause = checks.text("cause", request.cause)
        checks.done()
        change = TenantChange(state=SUSPENDED, suspend_cause=cause)
        tenant = await self._identity.change_tenant(_reached(request.tenant), change)
        return pb.SuspendTenantResponse(tenant=tenant_to_pb(tenant))

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, context: Any) -> pb.ResumeTenantResponse:
        change = TenantChange(state=ACTIVE, suspend_cause="")
        tenant = await self._identity.change_tenant(_reached(request.tenant), change)
        return pb.ResumeTenantResponse(tenant=tenant_to_pb(tenant))

    async def GetTenant(self, request: pb.GetTenantRequest, context: Any) -> pb.GetTenantResponse:
        return pb.GetTenantResponse(tenant=tenant_to_pb(await self._identity.get_tenant(_reached(request.tenant))))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Any) -> pb.ListTenantsResponse:
        checks = Checks()
        limit = checks.page_size("page_size", request.page_size)
        after = _page_start(request.page_token, checks)
        checks.done()
        tenants = await self._identity.registry.list_tenants(after=after, limit=limit)
        wanted = [
            tenant for tenant in tenants if request.state in (0, _STATES[tenant.state]) and _in_reach(tenant.name)
        ]
        token = tenants[-1].name if len(tenants) == limit else ""
        return pb.ListTenantsResponse(tenants=map(tenant_to_pb, wanted), next_page_token=token)

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        checks = Checks()
        label = checks.text("label", request.label)
        ttl_s = checks.ttl("ttl", request.HasField("ttl"), request.ttl)
        if request.namespaces:
            checks.fail("namespaces", "keys confined to namespaces are not issued by this server")
        checks.done()
        scopes = tuple(request.scopes) or AGENT_SCOPES
        _require_scopes(scopes)
        tenants = [_reached(name) for name in request.tenants or [""]]
        new = await self._identity.create_key(tenants, scopes, label=label, expires_at=self._ends(ttl_s))
        return pb.CreateKeyResponse(key=key_to_pb(new.record), bearer=new.token)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        name = _reached(request.tenant)
        checks = Checks()
        limit = checks.page_size("page_size", request.page_size)
        after = _page_start(request.page_token, checks)
        checks.done()
        keys = await self._identity.registry.list_keys(name, after=after, limit=limit)
        shown = [key for key in keys if request.include_ended or not self._ended(key)]
        token = keys[-1].key_id if len(keys) == limit else ""
        return pb.ListKeysResponse(keys=map(key_to_pb, shown), next_page_token=token)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        key = await self._identity.registry.get_key(request.key_id)
        if key is None or not all(map(_in_reach, key.tenants)):
            raise KeyNotFoundError(key_id=request.key_id)
        return pb.RevokeKeyResponse(key=key_to_pb(await self._identity.revoke_key(request.key_id)))

    async def Authenticate(self, request: pb.AuthenticateRequest, context: Any) -> pb.AuthenticateResponse:
        try:
            caller = await self._identity.authenticate(request.bearer)
        except CredentialsExpiredError:
            return _refused(pb.CREDENTIAL_VERDICT_EXPIRED)
        except CredentialsInvalidError:
            return _refused(pb.CREDENTIAL_VERDICT_INVALID)
        wire = pb.AuthenticateResponse(
            verdict=pb.CREDENTIAL_VERDICT_VALID,
            credential_id=caller.credential_id,
            tenants=sorted(caller.tenants),
            suspended_tenants=sorted(caller.suspended),
            scopes=sorted(caller.scopes),
            namespaces=caller.namespaces,
        )
        wire.fresh_for.FromSeconds(int(self._identity.fresh_s))
        wire.usable_for.FromSeconds(USABLE_S)
        return wire

    def _ends(self, ttl_s: float | None) -> datetime | None:
        return None if ttl_s is None else self._identity.clock.now() + timedelta(seconds=ttl_s)

    def _ended(self, key: KeyRecord) -> bool:
        expired = key.expires_at is not None and key.expires_at <= self._identity.clock.now()
        return key.revoked_at is not None or expired


def tenant_to_pb(tenant: TenantRecord) -> pb.TenantRecord:
    """Write a tenant."""
    return pb.TenantRecord(
        tenant=tenant.name,
        display_name=tenant.display_name,
        state=_STATES[tenant.state],
        dedicated=tenant.dedicated,
        labels=tenant.labels,
        scorer=tenant.scorer,
        recall_weights=tenant.recall_weights,
        create_time=timestamp(tenant.created_at),
        update_time=timestamp(tenant.updated_at or tenant.created_at),
        version=tenant.version,
        suspend_cause=tenant.suspend_cause,
    )


def settings_from_pb(wire: pb.TenantRecord, paths: Sequence[str], checks: Checks) -> TenantChange:
    """Read the named settings of a tenant."""
    given: dict[str, Any] = {}
    if "display_name" in paths:
        given["display_name"] = checks.text("tenant.display_name", wire.display_name)
    if "labels" in paths:
        if len(wire.labels) > LABELS:
            checks.fail("tenant.labels", f"must hold at most {LABELS}")
        for name, value in wire.labels.items():
            checks.required("tenant.labels", name)
            checks.text(f"tenant.labels[{name}]", value)
        given["labels"] = dict(wire.labels)
    if "scorer" in paths:
        given["scorer"] = checks.text("tenant.scorer", wire.scorer)
    if "recall_weights" in paths:
        given["recall_weights"] = dict(wire.recall_weights)
    return TenantChange(**given)


def _refuse_unserved(wire: pb.TenantRecord, checks: Checks) -> None:
    """Settings that would be kept and heeded by nobody are refused."""
    if wire.HasField("quotas"):
        checks.fail("tenant.quotas", "are not enforced by this server; leave them out")
    if wire.embedding_profile:
        checks.fail("tenant.embedding_profile", "is the server's; move a tenant by OperatorService.ReEmbed")


def key_to_pb(key: KeyRecord) -> pb.ApiKey:
    """Write a key; there is no way to write its secret."""
    return pb.ApiKey(
        key_id=key.key_id,
        label=key.label,
        tenants=key.tenants,
        scopes=key.scopes,
        create_time=timestamp(key.created_at),
        expire_time=timestamp(key.expires_at),
        revoke_time=timestamp(key.revoked_at),
    )


def _tenant_name(name: str, checks: Checks, path: str) -> str:
    if not is_tenant_name(name):
        checks.fail(path, "must be 1-63 of a-z, 0-9, '.', '_', '-', the first a letter or digit")
    return name


def _page_start(token: str, checks: Checks) -> str:
    """Administrators page by name or id: the token is the last one seen, and opens nothing else."""
    if token and not is_tenant_name(token):
        checks.fail("page_token", "was not made by this call")
    return token


def _in_reach(name: str) -> bool:
    caller = current_caller()
    return caller.has_scope(OPERATOR) or caller.may_act_as or name in caller.tenants


def _reached(name: str) -> str:
    """The tenant that a request names, the caller's if it names none.

    Raises TenantForbiddenError for one out of reach, whether there is such a tenant or not.
    """
    name = name or current_tenant().name
    if not _in_reach(name):
        raise TenantForbiddenError(tenant=name)
    return name


def _require_scopes(scopes: Sequence[str]) -> None:
    """A key can give no more than its maker has."""
    caller = current_caller()
    for position, scope in enumerate(scopes):
        if scope == ACT_AS:
            raise FieldViolationError.at(f"scopes[{position}]", "is given to servers only, not to keys")
        if not caller.has_scope(scope):
            raise ScopeMissingError(scope=scope)


def _refused(verdict: pb.CredentialVerdict.ValueType) -> pb.AuthenticateResponse:
    wire = pb.AuthenticateResponse(verdict=verdict)
    wire.fresh_for.FromSeconds(1)
    return wire

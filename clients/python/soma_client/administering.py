"""Tenants and keys; spoken to the memory server.

The scopes admin:* serve for tenants in reach of the key, operator:write for all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from rpckit.metadata import new_request_id
from soma.admin.v1 import tenant_service_pb2 as pb
from soma.admin.v1 import tenant_service_pb2_grpc as rpc
from soma_client.calling import Calls


class TenantCalls:
    """The first calls of TenantService, in the contract's own messages."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._tenants = rpc.TenantServiceStub(calls.channel)

    async def create(self, tenant: str, *, display_name: str = "", dedicated: bool = False) -> pb.TenantRecord:
        """Create a tenant; raises TenantExistsError."""
        request_id = new_request_id()
        record = pb.TenantRecord(tenant=tenant, display_name=display_name, dedicated=dedicated)
        request = pb.CreateTenantRequest(tenant=record, request_id=request_id)
        return (await self._calls.unary(self._tenants.CreateTenant, request, None, request_id)).tenant

    async def update(
        self,
        tenant: str,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        scorer: str | None = None,
        recall_weights: Mapping[str, float] | None = None,
        if_match: int | None = None,
    ) -> pb.TenantRecord:
        """Change what is given of a tenant; raises TenantNotFoundError, VersionMismatchError, FieldViolationError."""
        given = {"display_name": display_name, "labels": labels, "scorer": scorer, "recall_weights": recall_weights}
        record = pb.TenantRecord(
            tenant=tenant,
            display_name=display_name or "",
            labels=labels,
            scorer=scorer or "",
            recall_weights=recall_weights,
        )
        request = pb.UpdateTenantRequest(tenant=record, if_match=if_match)
        request.update_mask.paths.extend(name for name, value in given.items() if value is not None)
        return (await self._calls.unary(self._tenants.UpdateTenant, request)).tenant

    async def suspend(self, tenant: str, cause: str = "") -> pb.TenantRecord:
        """Refuse all calls of a tenant until it is resumed; nothing is deleted."""
        request = pb.SuspendTenantRequest(tenant=tenant, cause=cause)
        return (await self._calls.unary(self._tenants.SuspendTenant, request)).tenant

    async def resume(self, tenant: str) -> pb.TenantRecord:
        """End a suspension."""
        return (await self._calls.unary(self._tenants.ResumeTenant, pb.ResumeTenantRequest(tenant=tenant))).tenant

    async def get(self, tenant: str) -> pb.TenantRecord:
        """Read a tenant; raises TenantNotFoundError."""
        return (await self._calls.unary(self._tenants.GetTenant, pb.GetTenantRequest(tenant=tenant))).tenant

    async def list(self, *, page_size: int = 0) -> AsyncIterator[pb.TenantRecord]:
        """Iterate over the tenants, by name."""
        request = pb.ListTenantsRequest(page_size=page_size)
        while True:
            page = await self._calls.unary(self._tenants.ListTenants, request)
            for tenant in page.tenants:
                yield tenant
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def create_key(
        self,
        *tenants: str,
        scopes: Iterable[str] = (),
        label: str = "",
        ttl_s: float | None = None,
    ) -> pb.CreateKeyResponse:
        """Make a key for tenants; its ``bearer`` is shown this once. No scopes means an agent's."""
        request = pb.CreateKeyRequest(tenants=tenants, scopes=scopes, label=label)
        if ttl_s is not None:
            request.ttl.FromNanoseconds(round(ttl_s * 1e9))
        return await self._calls.unary(self._tenants.CreateKey, request)

    async def list_keys(
        self, tenant: str, *, include_ended: bool = False, page_size: int = 0
    ) -> AsyncIterator[pb.ApiKey]:
        """Iterate over a tenant's keys, without their secrets."""
        request = pb.ListKeysRequest(tenant=tenant, include_ended=include_ended, page_size=page_size)
        while True:
            page = await self._calls.unary(self._tenants.ListKeys, request)
            for key in page.keys:
                yield key
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def revoke_key(self, key_id: str) -> pb.ApiKey:
        """Revoke a key; raises KeyNotFoundError."""
        return (await self._calls.unary(self._tenants.RevokeKey, pb.RevokeKeyRequest(key_id=key_id))).key

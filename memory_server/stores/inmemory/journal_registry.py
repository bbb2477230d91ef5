"""Tenants and API keys in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from memory_server.ports import KeyRecord, TenantChange, TenantRecord
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from soma_contract.errors import TenantExistsError


@dataclass(slots=True)
class InMemoryRegistry:
    """See :class:`memory_server.ports.Registry`."""

    truth: InMemoryTruth
    tenants: dict[str, TenantRecord] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)

    async def create_tenant(
        self,
        name: str,
        display_name: str,
        *,
        dedicated: bool,
        settings: TenantChange | None = None,
        request_id: str = "",
    ) -> TenantRecord:
        """Create a tenant with some settings.  Raises TenantExistsError, unless the same request made it."""
        if name in self.tenants:
            if request_id and self.made_by.get(name) == request_id:
                return self.tenants[name]
            raise TenantExistsError(tenant=name)
        made = TenantRecord(name, "active", display_name, self.truth.clock.now(), dedicated)
        self.tenants[name] = replace(made, **_given(settings or TenantChange()))
        self.made_by[name] = request_id
        if dedicated:
            self.truth.dedicated.add(name)
        return self.tenants[name]

    async def change_tenant(self, name: str, change: TenantChange, if_match: int | None = None) -> TenantRecord | None:
        """Change a tenant; None when there is none, or another version of it than ``if_match``."""
        tenant = self.tenants.get(name)
        if tenant is None or if_match not in (None, tenant.version):
            return None
        self.tenants[name] = replace(
            tenant, **_given(change), updated_at=self.truth.clock.now(), version=tenant.version + 1
        )
        return self.tenants[name]

    async def get_tenant(self, name: str) -> TenantRecord | None:
        """Read a tenant."""
        return self.tenants.get(name)

    async def list_tenants(self, *, after: str, limit: int) -> list[TenantRecord]:
        """Read tenants in name order."""
        return [self.tenants[name] for name in sorted(self.tenants) if name > after][:limit]

    async def put_key(self, key: KeyRecord) -> None:
        """Add a key; one of the same id is replaced."""
        self.keys[key.key_id] = key

    async def get_key(self, key_id: str) -> KeyRecord | None:
        """Read a key by its id."""
        return self.keys.get(key_id)

    async def list_keys(self, tenant_name: str, *, after: str, limit: int) -> list[KeyRecord]:
        """Read the keys of a tenant in the order of their ids."""
        own = [key for key_id, key in sorted(self.keys.items()) if key_id > after and tenant_name in key.tenants]
        return own[:limit]

    async def revoke_key(self, key_id: str) -> KeyRecord | None:
        """Revoke a key now; a key that was revoked keeps its first moment.  None when there is none."""
        key = self.keys.get(key_id)
        if key is not None and key.revoked_at is None:
            key = self.keys[key_id] = replace(key, revoked_at=self.truth.clock.now())
        return key


def _given(change: TenantChange) -> dict[str, Any]:
    """What a change names."""
    values = {one.name: getattr(change, one.name) for one in fields(change)}
    return {name: value for name, value in values.items() if value is not None}

"""What every Registry must do: the in-memory twin and Postgres pass the same tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from memory_server.ports import KeyRecord, TenantChange
from soma_contract.errors import TenantExistsError
from tests.conformance.truth_stores import (
    Truth,
    truth,
    truth_database,
    truth_in_postgres,
    truth_name,
)

__all__ = ["truth", "truth_database", "truth_in_postgres", "truth_name"]

MOMENT = datetime(2025, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = KeyRecord("k1", ("acme", "globex"), ("memory:*",), "ci", MOMENT, MOMENT, None, bytes(range(32)))


async def test_a_tenant_is_made_once(truth: Truth) -> None:
    made = await truth.registry.create_tenant("acme", "Acme Inc.", dedicated=True)
    assert ("acme", "active", "Acme Inc.", True) == (made.name, made.state, made.display_name, made.dedicated)
    assert made == await truth.registry.get_tenant("acme")
    with pytest.raises(TenantExistsError) as refused:
        await truth.registry.create_tenant("acme", "", dedicated=False)
    assert {"tenant": "acme"} == refused.value.metadata
    assert await truth.registry.get_tenant("globex") is None


async def test_tenants_are_listed_by_name_in_pages(truth: Truth) -> None:
    for name in ("c", "a", "b-1", "b", "b.1"):
        await truth.registry.create_tenant(name, "", dedicated=False)
    first = await truth.registry.list_tenants(after="", limit=3)
    rest = await truth.registry.list_tenants(after=first[-1].name, limit=3)
    assert [["a", "b", "b-1"], ["b.1", "c"]] == [[one.name for one in page] for page in (first, rest)]


async def test_a_key_is_read_back_as_it_was_put(truth: Truth) -> None:
    await truth.registry.put_key(KEY)
    assert KEY == await truth.registry.get_key("k1")
    assert await truth.registry.get_key("k2") is None
    await truth.registry.put_key(replace(KEY, label="other"))
    assert replace(KEY, label="other") == await truth.registry.get_key("k1")


async def test_keys_are_listed_by_tenant(truth: Truth) -> None:
    keys = [replace(KEY, key_id=f"k{number}", tenants=("acme",) if number % 2 else ("globex",)) for number in range(6)]
    for key in keys:
        await truth.registry.put_key(key)
    assert [keys[1], keys[3]] == await truth.registry.list_keys("acme", after="", limit=2)
    assert [keys[5]] == await truth.registry.list_keys("acme", after="k3", limit=2)
    assert [] == await truth.registry.list_keys("initech", after="", limit=2)


async def test_a_key_is_revoked_once(truth: Truth) -> None:
    await truth.registry.put_key(KEY)
    revoked = await truth.registry.revoke_key("k1")
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert replace(KEY, revoked_at=revoked.revoked_at) == revoked == await truth.registry.revoke_key("k1")
    assert await truth.registry.revoke_key("k2") is None


async def test_settings_of_a_tenant_are_read_back_and_changed_one_by_one(truth: Truth) -> None:
    settings = TenantChange(labels={"plan": "gold"}, scorer="mine", recall_weights={"keyword": 0.3})
    made = await truth.registry.create_tenant("acme", "Acme", dedicated=False, settings=settings)
    assert ({"plan": "gold"}, "mine", {"keyword": 0.3}, 1) == (
        made.labels,
        made.scorer,
        made.recall_weights,
        made.version,
    )
    changed = await truth.registry.change_tenant("acme", TenantChange(recall_weights={"recency": 0.1}))
    assert changed is not None
    assert ("Acme", {"plan": "gold"}, "mine", {"recency": 0.1}, 2) == (
        changed.display_name,
        changed.labels,
        changed.scorer,
        changed.recall_weights,
        changed.version,
    )
    assert changed.updated_at is not None
    assert changed == await truth.registry.get_tenant("acme")


async def test_a_tenant_is_changed_only_at_the_version_expected(truth: Truth) -> None:
    await truth.registry.create_tenant("acme", "", dedicated=False)
    assert await truth.registry.change_tenant("acme", TenantChange(display_name="a"), if_match=2) is None
    assert await truth.registry.change_tenant("acme", TenantChange(display_name="b"), if_match=1) is not None
    assert await truth.registry.change_tenant("acme", TenantChange(display_name="c"), if_match=1) is None
    assert await truth.registry.change_tenant("globex", TenantChange(display_name="d")) is None


async def test_the_request_that_made_a_tenant_may_be_repeated(truth: Truth) -> None:
    made = await truth.registry.create_tenant("acme", "", dedicated=False, request_id="r1")
    assert made == await truth.registry.create_tenant("acme", "", dedicated=False, request_id="r1")
    for other in ("r2", ""):
        with pytest.raises(TenantExistsError):
            await truth.registry.create_tenant("acme", "", dedicated=False, request_id=other)
    await truth.registry.create_tenant("globex", "", dedicated=False)
    with pytest.raises(TenantExistsError):
        await truth.registry.create_tenant("globex", "", dedicated=False)

"""A tenant cannot be written down; a caller's rules mean what they say."""

import copy
import dataclasses
import pickle

import pytest

from rpckit.call import CallContext, current_call_or_none, current_tenant, within_call
from soma_contract.errors import FieldViolationError, ScopeMissingError, TenantForbiddenError, Violation, field_path
from soma_contract.tenant import ACT_AS, Caller, Tenant, admin_tenant


def test_a_tenant_cannot_be_made_from_a_string() -> None:
    with pytest.raises(TypeError):
        Tenant("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Tenant()
    with pytest.raises(ValueError, match="say why"):
        admin_tenant("a", reason="")


def test_a_tenant_does_not_change() -> None:
    tenant = admin_tenant("a", reason="test")
    with pytest.raises(dataclasses.FrozenInstanceError):
        tenant.name = "b"  # type: ignore[misc]
    assert {tenant} == {admin_tenant("a", reason="another")}
    assert tenant != admin_tenant("b", reason="test")
    assert pickle.loads(pickle.dumps(tenant)) == tenant == copy.copy(tenant)


@pytest.mark.parametrize("name", ["", "A", "ä", "-a", "a b", "a/b", "a\n", "a\x00", "a" * 64, "a'", "a:b"])
def test_a_name_that_is_not_canonical_is_no_tenants(name: str) -> None:
    with pytest.raises(FieldViolationError):
        admin_tenant(name, reason="test")


def test_scopes_match_by_name_area_or_all_and_acting_for_others_only_by_name() -> None:
    caller = Caller("c", frozenset({"a"}), frozenset({"memory:read", "graph:*"}))
    held = [scope for scope in ("memory:read", "memory:write", "graph:write", "ops") if caller.has_scope(scope)]
    assert held == ["memory:read", "graph:write"]
    everything = Caller("c", frozenset({"a"}), frozenset({"*"}))
    assert everything.has_scope("memory:write")
    assert not everything.has_scope(ACT_AS)
    assert not everything.may_act_as
    with pytest.raises(ScopeMissingError, match="memory:write") as caught:
        caller.require_scope("memory:write")
    assert caught.value.metadata == {"scope": "memory:write"}


def test_namespaces_match_exactly_or_by_prefix() -> None:
    caller = Caller("c", frozenset({"a"}), namespaces=("work", "shared-*"))
    reached = [name for name in ("work", "workshop", "shared-x", "shared", "default") if caller.may_use_namespace(name)]
    assert reached == ["work", "shared-x"]
    assert Caller("c", frozenset({"a"})).may_use_namespace("anything")


def test_outside_of_a_call_there_is_no_tenant() -> None:
    assert current_call_or_none() is None
    with pytest.raises(LookupError):
        current_tenant()
    with within_call(CallContext("/x.Y/Z", "r")), pytest.raises(TenantForbiddenError):
        current_tenant()
    tenant = admin_tenant("a", reason="test")
    with within_call(CallContext("/x.Y/Z", "r", tenant=tenant)):
        assert current_tenant() is tenant


def test_field_paths_grow_outwards() -> None:
    def parse() -> None:
        with field_path("memory"), field_path("tags"):
            raise FieldViolationError.at("[3]", "must not be empty")

    with pytest.raises(FieldViolationError) as caught:
        parse()
    assert caught.value.violations == (Violation("memory.tags[3]", "must not be empty"),)
    assert str(caught.value) == "memory.tags[3]: must not be empty"

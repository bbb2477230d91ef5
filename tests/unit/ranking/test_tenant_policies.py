"""Tenants' own weights and strategies."""

from __future__ import annotations

import pytest

from memory_server.core.tenant_policies import Policies, Policy, load_scorers
from memory_server.domain.pool import Pool, QueryFeatures
from memory_server.domain.presets import BALANCED, FAST, Weights
from memory_server.domain.scoring import Ranking, RelevanceScorer, rank
from memory_server.ports import TenantChange
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.journal_registry import InMemoryRegistry
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from soma_contract.tenant import admin_tenant

ACME = admin_tenant("acme", reason="tests")


class Upside:
    """A strategy of somebody's own."""

    def rank(self, pool: Pool, query: QueryFeatures, weights: Weights) -> Ranking:
        """Order the pool."""
        return rank(pool, query, weights)


class NoStrategy:
    """Something else."""


def test_a_tenants_weight_takes_the_place_of_the_presets() -> None:
    policy = Policy({"keyword": 0.5, "late_interaction": 0.1, "recency": 0.2}, "mine")
    balanced = policy.of(BALANCED)
    assert (0.5, 0.1, 0.2, "mine") == (
        balanced.keyword,
        balanced.late_interaction,
        balanced.recency,
        balanced.scorer,
    )
    assert BALANCED.session == balanced.session


def test_what_a_preset_saves_itself_stays_saved() -> None:
    fast = Policy({"late_interaction": 0.9, "session": 0.5, "keyword": 0.2, "recency": 0.1}).of(FAST)
    assert (0.0, 0.0, 0.2, 0.1) == (fast.late_interaction, fast.session, fast.keyword, fast.recency)


async def test_a_tenant_is_scored_by_the_strategy_it_chose() -> None:
    registry = InMemoryRegistry(InMemoryTruth(SystemClock(), analysis()))
    scorers = load_scorers({"upside": f"{__name__}:Upside"})
    policies = Policies(registry, SystemClock(), scorers)
    assert Policy() == await policies.of(ACME), "a tenant that is not registered has the defaults"
    await registry.create_tenant("acme", "", dedicated=False, settings=TenantChange(scorer="upside"))
    policies.forget()
    chosen = (await policies.of(ACME)).of(BALANCED)
    assert isinstance(policies.scorer(chosen), Upside)
    assert isinstance(policies.scorer(BALANCED), RelevanceScorer)


@pytest.mark.parametrize(
    "place", ["", "nomodule", "no.such.module:Class", f"{__name__}:Missing", f"{__name__}:NoStrategy"]
)
def test_a_strategy_that_cannot_be_had_is_named(place: str) -> None:
    with pytest.raises(ValueError, match="SOMA_SCORERS: mine"):
        load_scorers({"mine": place})

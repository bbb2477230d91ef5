"""Personas: what is searched for the context of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from soma_contract.filters import EVERYTHING, AllOf, Filter, LabelField, LabelIn
from soma_contract.memory import Kind


@dataclass(frozen=True, slots=True)
class Category:
    """One section of a context."""

    name: str
    filter: Filter = EVERYTHING
    limit: int = 10
    share: float = 1.0
    """Of the token budget, relative to the other sections."""
    text: str = ""
    """What to search for instead of the conversation."""
    min_score: float | None = None
    own: bool = False
    """Only memories of the persona itself."""

    def of_persona(self, persona_id: str) -> Filter:
        """Return the filter for a persona."""
        if not self.own or not persona_id:
            return self.filter
        return AllOf((self.filter, LabelIn(LabelField.PERSONA, (persona_id,))))


@dataclass(frozen=True, slots=True)
class TenantPersonas:
    """What one tenant's personas search; ``categories`` is for a persona that is not named, and for none."""

    categories: tuple[Category, ...] = ()
    personas: Mapping[str, tuple[Category, ...]] = field(default_factory=dict)


BUILT_IN = (
    Category("Facts and preferences", LabelIn(LabelField.KIND, (Kind.SEMANTIC.value,)), share=2.0),
    Category("How to do it", LabelIn(LabelField.KIND, (Kind.PROCEDURAL.value,)), limit=5),
    Category("What happened", LabelIn(LabelField.KIND, (Kind.EPISODIC.value,)), share=2.0),
)
"""What is searched where nobody has said anything else."""


@dataclass(frozen=True, slots=True)
class Personas:
    """The personas of all tenants."""

    defaults: TenantPersonas = TenantPersonas()
    tenants: Mapping[str, TenantPersonas] = field(default_factory=dict)

    def categories(self, tenant_name: str, persona_id: str) -> tuple[Category, ...]:
        """Return the sections for a persona: its own, else its tenant's, else everybody's, else the built-in ones."""
        own = self.tenants.get(tenant_name, TenantPersonas())
        return (
            own.personas.get(persona_id, ())
            or own.categories
            or self.defaults.personas.get(persona_id, ())
            or self.defaults.categories
            or BUILT_IN
        )

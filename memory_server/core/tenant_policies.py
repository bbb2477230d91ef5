"""How each tenant's recalls are scored: the weights it sets, and the strategy it chose."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from memory_server.core.answers import Answers, Patience
from memory_server.domain.presets import OPTIONS, Weights
from memory_server.domain.scoring import RelevanceScorer, Scorer
from memory_server.ports import Clock, Registry
from soma_contract.errors import FieldViolationError, Violation
from soma_contract.tenant import Tenant

WEIGHTS = tuple(one.name for one in fields(Weights) if one.name != "scorer")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a tenant set about its recalls."""

    weights: Mapping[str, float] = field(default_factory=dict)
    scorer: str = ""

    def of(self, preset: Weights) -> Weights:
        """Return a preset's weights as the tenant wants them.

        What a preset leaves out for the time it takes stays out; the bounded options may be given to any.
        """
        own = {name: value for name, value in self.weights.items() if name in OPTIONS or getattr(preset, name) > 0}
        return replace(preset, **own, scorer=self.scorer)


_NONE = Policy()


@dataclass(slots=True)
class Policies:
    """Reads what tenants set; a change is heeded after ``patience.fresh_s`` seconds, at once in this process."""

    registry: Registry
    clock: Clock
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    """The strategies that may be chosen, by name."""
    patience: Patience = field(default_factory=Patience)
    _kept: Answers[str, Policy] = field(init=False)
    _built_in: Scorer = field(default_factory=RelevanceScorer)

    def __post_init__(self) -> None:
        self._kept = Answers(self.clock, self.patience)

    async def of(self, tenant: Tenant) -> Policy:
        """Return what a tenant set.  Raises ComponentUnavailableError when that cannot be known."""

        async def ask() -> Policy:
            record = await self.registry.get_tenant(tenant.name)
            return _NONE if record is None else Policy(dict(record.recall_weights), record.scorer)

        return (await self._kept.get(tenant.name, ask))[0]

    def scorer(self, weights: Weights) -> Scorer:
        """Return the strategy that goes with weights; the built-in one where its class is no longer configured."""
        return self.scorers.get(weights.scorer, self._built_in)

    def forget(self) -> None:
        """Ask anew for every tenant; called when one was changed."""
        self._kept.forget_all()

    def check(self, weights: Mapping[str, float] | None, scorer: str | None) -> None:
        """Raise FieldViolationError for weights or a strategy that this server does not have."""
        violations = [
            *(
                Violation(f"tenant.recall_weights[{name}]", f"is not a weight: {', '.join(WEIGHTS)}")
                for name in weights or ()
                if name not in WEIGHTS
            ),
            *(
                Violation(f"tenant.recall_weights[{name}]", "must be from 0 to 1")
                for name, value in (weights or {}).items()
                if not 0.0 <= value <= 1.0
            ),
        ]
        if scorer and scorer not in self.scorers:
            known = ", ".join(sorted(self.scorers)) or "none; SOMA_SCORERS names them"
            violations.append(Violation("tenant.scorer", f"is not a strategy of this server: {known}"))
        if violations:
            raise FieldViolationError(violations=violations)


def load_scorers(named: Mapping[str, str]) -> dict[str, Scorer]:
    """Make the strategies that are named ``module:Class``.  Raises ValueError for one that cannot be had."""
    made: dict[str, Scorer] = {}
    for name, place in named.items():
        try:
            made[name] = _scorer(place)
        except Exception as error:
            raise ValueError(f"SOMA_SCORERS: {name} = {place!r}: {type(error).__name__}: {error}") from error
    return made


def _scorer(place: str) -> Scorer:
    module, _, attribute = place.partition(":")
    if not (module and attribute):
        raise ValueError("must be module:Class")
    scorer: Scorer = getattr(importlib.import_module(module), attribute)()
    if not callable(getattr(scorer, "rank", None)):
        raise TypeError("has no method rank(pool, query, weights)")
    return scorer

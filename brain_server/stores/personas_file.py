"""Personas and breaker thresholds out of ``conf/tenants.yaml``: validated when read, read again when it changes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from brain_server.domain.breaker import BreakerRules
from brain_server.domain.persona import Category, Personas, TenantPersonas
from brain_server.ports import Clock
from soma_contract.filters import (
    EVERYTHING,
    AllOf,
    Filter,
    KeyPrefix,
    LabelField,
    LabelIn,
    NumberField,
    NumberRange,
    TagsAll,
    TagsAny,
)
from soma_contract.limits import LIMITS
from soma_contract.memory import Kind
from soma_contract.tenant import is_tenant_name

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How often the file's time is looked at."""
_MOST_CATEGORIES = 32
_USUAL = BreakerRules()

Label = Annotated[str, Field(min_length=1, max_length=LIMITS.label_bytes)]
Labels = Annotated[tuple[Label, ...], Field(max_length=64)]


class PersonasFileError(ValueError):
    """The file of personas cannot be used; the message names the place and what is wrong there."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CategoryEntry(_Model):
    """One category as it is written down."""

    name: Label
    kinds: tuple[Kind, ...] = ()
    types: Labels = ()
    namespaces: Labels = ()
    tags_any: Labels = ()
    tags_all: Labels = ()
    key_prefix: str = Field("", max_length=LIMITS.label_bytes)
    min_relevance: float | None = Field(None, ge=0, le=1)
    min_importance: float | None = None
    own: bool = False
    limit: int = Field(10, ge=1, le=LIMITS.recall_limit)
    share: float = Field(1.0, gt=0, le=1_000)
    text: str = Field("", max_length=LIMITS.label_bytes)
    min_score: float | None = Field(None, ge=-1, le=1)

    def category(self) -> Category:
        """Return what it means."""
        conditions: list[Filter] = []
        if self.namespaces:
            conditions.append(LabelIn(LabelField.NAMESPACE, self.namespaces))
        if self.kinds:
            conditions.append(LabelIn(LabelField.KIND, tuple(kind.value for kind in self.kinds)))
        if self.types:
            conditions.append(LabelIn(LabelField.SCHEMA_TYPE, self.types))
        if self.tags_any:
            conditions.append(TagsAny(self.tags_any))
        if self.tags_all:
            conditions.append(TagsAll(self.tags_all))
        if self.key_prefix:
            conditions.append(KeyPrefix(self.key_prefix))
        if self.min_relevance is not None:
            conditions.append(NumberRange(NumberField.RELEVANCE, low=self.min_relevance))
        if self.min_importance is not None:
            conditions.append(NumberRange(NumberField.IMPORTANCE, low=self.min_importance))
        return Category(
            name=self.name,
            filter=AllOf(tuple(conditions)) if conditions else EVERYTHING,
            limit=self.limit,
            share=self.share,
            text=self.text,
            min_score=self.min_score,
            own=self.own,
        )


class PersonaEntry(_Model):
    """What one persona searches."""

    categories: Annotated[tuple[CategoryEntry, ...], Field(min_length=1, max_length=_MOST_CATEGORIES)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> PersonaEntry:
        names = [category.name for category in self.categories]
        if len(names) != len(set(names)):
            raise ValueError("two categories have the same name")
        return self


class BreakerEntry(_Model):
    """When a tenant's own breaker opens, and for how long."""

    consecutive: int = Field(_USUAL.consecutive, ge=1, le=1_000)
    window_s: float = Field(_USUAL.window_s, ge=1, le=600)
    min_calls: int = Field(_USUAL.min_calls, ge=1, le=100_000)
    failure_share: float = Field(_USUAL.failure_share, gt=0, le=1)
    slow_share: float = Field(_USUAL.slow_share, gt=0, le=1)
    open_s: float = Field(_USUAL.open_s, ge=0.1, le=600)
    open_max_s: float = Field(_USUAL.open_max_s, ge=0.1, le=3_600)

    @model_validator(mode="after")
    def _opens_no_longer_than_its_longest(self) -> BreakerEntry:
        if self.open_s > self.open_max_s:
            raise ValueError("open_s must not be more than open_max_s")
        return self


class TenantEntry(_Model):
    """What one tenant's personas search, and everybody else of the tenant; and when its breaker opens."""

    categories: Annotated[tuple[CategoryEntry, ...], Field(max_length=_MOST_CATEGORIES)] = ()
    personas: dict[Label, PersonaEntry] = Field(default_factory=dict)
    breaker: BreakerEntry | None = None

    def personas_of(self) -> TenantPersonas:
        """Return what it means."""
        return TenantPersonas(
            tuple(entry.category() for entry in self.categories),
            {name: tuple(entry.category() for entry in persona.categories) for name, persona in self.personas.items()},
        )


class PersonasEntry(_Model):
    """The whole file."""

    defaults: TenantEntry = Field(default_factory=TenantEntry)
    tenants: dict[str, TenantEntry] = Field(default_factory=dict)

    @field_validator("tenants")
    @classmethod
    def _are_tenant_names(cls, tenants: dict[str, TenantEntry]) -> dict[str, TenantEntry]:
        for name in tenants:
            if not is_tenant_name(name):
                raise ValueError(f"{name!r} is no tenant's name: 1-63 of a-z, 0-9, '.', '_', '-'")
        return tenants


def read_personas(text: str) -> Personas:
    """Return the personas of a file's text; raises PersonasFileError."""
    entry = _read_entry(text)
    return Personas(
        entry.defaults.personas_of(), {name: tenant.personas_of() for name, tenant in entry.tenants.items()}
    )


def read_breaker_rules(text: str) -> dict[str, BreakerRules]:
    """Return the rules of tenants' own breakers by tenant, where they are not the usual ones; or PersonasFileError."""
    entries = _read_entry(text).tenants
    return {name: BreakerRules(**each.breaker.model_dump()) for name, each in entries.items() if each.breaker}


def _read_entry(text: str) -> PersonasEntry:
    try:
        content: Any = yaml.safe_load(text)
        return PersonasEntry.model_validate(content if content is not None else {})
    except yaml.YAMLError as error:
        raise PersonasFileError(f"this is no YAML: {error}") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise PersonasFileError("; ".join(faults)) from error


class PersonasFile:
    """The personas of a file as it is now; raises PersonasFileError if it cannot be used when it is opened."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._seen: tuple[int, int] | None = None
        self._current = Personas()
        self._breaker_rules: dict[str, BreakerRules] = {}
        if path is not None:
            try:
                self._read(path)
            except (OSError, UnicodeDecodeError, PersonasFileError) as error:
                raise PersonasFileError(f"{path}: {error}") from error

    def current(self) -> Personas:
        """Return the personas; looks at most once a second whether the file has changed."""
        now = self._clock.monotonic()
        if self._path is not None and now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            try:
                self._read(self._path)
            except (OSError, UnicodeDecodeError, PersonasFileError) as error:
                log.error("%s is not usable, what it said before stays in force: %s", self._path, error)
        return self._current

    def breaker_rules(self, tenant_name: str) -> BreakerRules | None:
        """Return when a tenant's own breaker opens, or None if as everybody's."""
        self.current()
        return self._breaker_rules.get(tenant_name)

    def _read(self, path: Path) -> None:
        stat = path.stat()
        version = (stat.st_mtime_ns, stat.st_size)
        if version == self._seen:
            return
        # Also when it turns out to be wrong: it is told once.
        self._seen = version
        text = path.read_text(encoding="utf-8")
        self._current, self._breaker_rules = read_personas(text), read_breaker_rules(text)
        log.info("personas are read from %s", path)

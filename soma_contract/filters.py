"""The filter: one syntax tree, compiled to SQL and to Milvus expressions, evaluated here in memory.

The evaluator in this module is the meaning; a property test holds both compilers against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from soma_contract.json_rules import is_number, parse_payload
from soma_contract.memory import DEFAULT_NAMESPACE, Kind, Memory


class Comparison(StrEnum):
    """How a payload value is compared; values of different JSON types never compare as true."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    EXISTS = "exists"
    IN = "in"


class TimeField(StrEnum):
    """Which time a range applies to."""

    OCCURRED = "occurred_at"
    CREATED = "created_at"
    UPDATED = "updated_at"


class NumberField(StrEnum):
    """Which number a range applies to; a memory without it never matches."""

    IMPORTANCE = "importance"
    RELEVANCE = "relevance"


class LabelField(StrEnum):
    """Fields that are matched against a set of values."""

    MEMORY_ID = "memory_id"
    NAMESPACE = "namespace"
    KEY = "key"
    SCHEMA_TYPE = "schema_type"
    KIND = "kind"
    PERSONA = "persona_id"
    ACTOR = "actor"
    SESSION = "session_id"


Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class LabelIn:
    """The field equals one of the values."""

    field: LabelField
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyPrefix:
    """The key starts with the prefix, compared by code points; memories without a key never match."""

    prefix: str


@dataclass(frozen=True, slots=True)
class TagsAny:
    """At least one of the tags is present."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TagsAll:
    """All of the tags are present."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PayloadCompare:
    """The payload's value at the path compares so; an absent path never matches.

    A value of another JSON type compares as not equal, so only NE matches it.
    """

    path: tuple[str, ...]
    comparison: Comparison
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class TimeRange:
    """``start`` <= time < ``end``; either may be open.  A memory without the time never matches."""

    field: TimeField
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class NumberRange:
    """``low`` <= number <= ``high``; either may be open."""

    field: NumberField
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every operand matches; no operands match everything."""

    operands: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one operand matches; no operands match nothing."""

    operands: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class NoneOf:
    """No operand matches."""

    operands: tuple[Filter, ...] = ()


Leaf = LabelIn | KeyPrefix | TagsAny | TagsAll | PayloadCompare | TimeRange | NumberRange
Filter = AllOf | AnyOf | NoneOf | Leaf

EVERYTHING = AllOf()


def matches(node: Filter, memory: Memory) -> bool:
    """Whether a memory matches; the definition that the compilers are tested against."""
    match node:
        case AllOf(operands):
            return all(matches(operand, memory) for operand in operands)
        case AnyOf(operands):
            return any(matches(operand, memory) for operand in operands)
        case NoneOf(operands):
            return not any(matches(operand, memory) for operand in operands)
        case LabelIn(field, values):
            return _label(memory, field) in values
        case KeyPrefix(prefix):
            return bool(memory.key) and memory.key.startswith(prefix)
        case TagsAny(tags):
            return not set(tags).isdisjoint(memory.tags)
        case TagsAll(tags):
            return set(tags) <= set(memory.tags)
        case TimeRange(field, start, end):
            moment: datetime | None = getattr(memory, field.value)
            return moment is not None and (start is None or moment >= start) and (end is None or moment < end)
        case NumberRange(field, low, high):
            number: float | None = getattr(memory, field.value)
            return number is not None and (low is None or number >= low) and (high is None or number <= high)
        case PayloadCompare():
            return _payload_matches(node, memory.payload_json)


def walk(node: Filter) -> Iterator[Filter]:
    """Yield the node and everything below it."""
    yield node
    if isinstance(node, AllOf | AnyOf | NoneOf):
        for operand in node.operands:
            yield from walk(operand)


def reads_payload(node: Filter) -> bool:
    """Whether a condition looks into the payload, which only Postgres and memory can do."""
    return any(isinstance(part, PayloadCompare) for part in walk(node))


def with_default_namespace(node: Filter, namespace: str = DEFAULT_NAMESPACE) -> Filter:
    """Restrict a filter that names no namespace or id anywhere to the given namespace."""
    for part in walk(node):
        if isinstance(part, LabelIn) and part.field in (LabelField.NAMESPACE, LabelField.MEMORY_ID):
            return node
    return AllOf((LabelIn(LabelField.NAMESPACE, (namespace,)), node))


def namespaces_of(node: Filter) -> tuple[str, ...]:
    """The namespaces a filter names anywhere, in order."""
    found: dict[str, None] = {}
    for part in walk(node):
        if isinstance(part, LabelIn) and part.field is LabelField.NAMESPACE:
            found.update(dict.fromkeys(part.values))
    return tuple(found)


def _label(memory: Memory, field: LabelField) -> str:
    value = getattr(memory, field.value)
    return value.value if isinstance(value, Kind) else value


def _payload_matches(node: PayloadCompare, payload_json: str) -> bool:
    if not payload_json:
        return False
    value: Any = parse_payload(payload_json)
    for name in node.path:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    if node.comparison is Comparison.EXISTS:
        return True
    if node.comparison is Comparison.IN:
        return any(_compare(value, Comparison.EQ, wanted) for wanted in node.values)
    return _compare(value, node.comparison, node.values[0])


def _compare(value: object, comparison: Comparison, wanted: Scalar) -> bool:
    left: Any
    right: Any
    if isinstance(wanted, bool):
        if not isinstance(value, bool):
            return comparison is Comparison.NE
        left, right = value, wanted
    elif isinstance(wanted, int | float):
        if not is_number(value):
            return comparison is Comparison.NE
        # repr of a float is its shortest exact-round-trip form, so 0.1 means 0.1 on both sides.
        left, right = Decimal(str(value)), Decimal(repr(wanted))
    else:
        if not isinstance(value, str) or is_number(value):
            return comparison is Comparison.NE
        left, right = value, wanted
    match comparison:
        case Comparison.EQ:
            return bool(left == right)
        case Comparison.NE:
            return bool(left != right)
        case Comparison.LT:
            return bool(left < right)
        case Comparison.LE:
            return bool(left <= right)
        case Comparison.GT:
            return bool(left > right)
        case Comparison.GE:
            return bool(left >= right)
    return False

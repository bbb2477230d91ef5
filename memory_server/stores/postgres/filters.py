"""The filter's syntax tree as a SQL condition on ``memory_items m``, all values as parameters.

Every condition is true or false and never NULL, so that negation means the same as in
:func:`soma_contract.filters.matches`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from soma_contract.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    KeyPrefix,
    LabelField,
    LabelIn,
    NoneOf,
    NumberRange,
    PayloadCompare,
    Scalar,
    TagsAll,
    TagsAny,
    TimeRange,
)

LIVE = "NOT m.deleted AND (m.expires_at IS NULL OR m.expires_at > statement_timestamp())"
"""What every reader asks of a row: the database's clock decides, to the moment of reading."""

_OPERATORS = {
    Comparison.EQ: "=",
    Comparison.NE: "<>",
    Comparison.LT: "<",
    Comparison.LE: "<=",
    Comparison.GT: ">",
    Comparison.GE: ">=",
}


@dataclass(slots=True)
class Parameters:
    """The values of a statement, numbered as they come."""

    values: list[object] = field(default_factory=list)

    def add(self, value: object, kind: str) -> str:
        """Append a value and return its placeholder with its type."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def compiled(node: Filter, parameters: Parameters) -> str:
    """Return the condition for a filter, appending its values to the parameters."""
    match node:
        case AllOf(operands):
            return _joined(" AND ", operands, parameters, empty="true")
        case AnyOf(operands):
            return _joined(" OR ", operands, parameters, empty="false")
        case NoneOf(operands):
            return f"NOT {_joined(' OR ', operands, parameters, empty='false')}"
        case LabelIn():
            return _label(node, parameters)
        case KeyPrefix(prefix):
            return f"(m.key <> '' AND starts_with(m.key, {parameters.add(prefix, 'text')}))"
        case TagsAny(tags):
            return f"m.tags && {parameters.add(list(tags), 'text[]')}"
        case TagsAll(tags):
            return f"m.tags @> {parameters.add(list(tags), 'text[]')}"
        case TimeRange(moment, start, end):
            column = f"m.{moment.value}"
            bounds = [f"{column} IS NOT NULL"]
            if start is not None:
                bounds.append(f"{column} >= {parameters.add(start, 'timestamptz')}")
            if end is not None:
                bounds.append(f"{column} < {parameters.add(end, 'timestamptz')}")
            return _definite(bounds)
        case NumberRange(number, low, high):
            column = f"m.{number.value}"
            bounds = [f"{column} IS NOT NULL"]
            if low is not None:
                bounds.append(f"{column} >= {parameters.add(low, 'float8')}")
            if high is not None:
                bounds.append(f"{column} <= {parameters.add(high, 'float8')}")
            return _definite(bounds)
        case PayloadCompare():
            return _payload(node, parameters)


def _joined(word: str, operands: Iterable[Filter], parameters: Parameters, *, empty: str) -> str:
    parts = [compiled(operand, parameters) for operand in operands]
    return f"({word.join(parts)})" if parts else empty


def _label(node: LabelIn, parameters: Parameters) -> str:
    if node.field is LabelField.MEMORY_ID:
        ids = [value for value in node.values if _is_canonical(value)]
        return f"m.memory_id = ANY ({parameters.add(ids, 'uuid[]')})"
    return f"m.{node.field.value} = ANY ({parameters.add(list(node.values), 'text[]')})"


def _is_canonical(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _definite(bounds: list[str]) -> str:
    return f"COALESCE({' AND '.join(bounds)}, false)"


def _payload(node: PayloadCompare, parameters: Parameters) -> str:
    if node.comparison is Comparison.IN and not node.values:
        return "false"
    # The text operator -> reads members of objects only; #> would also read positions of arrays.
    value = "m.payload_jsonb" + "".join(f" -> {parameters.add(name, 'text')}" for name in node.path)
    if node.comparison is Comparison.EXISTS:
        return f"COALESCE(({value}) IS NOT NULL, false)"
    if node.comparison is Comparison.IN:
        wanted = [_compared(value, Comparison.EQ, one, parameters) for one in node.values]
        return f"({' OR '.join(wanted)})"
    return _compared(value, node.comparison, node.values[0], parameters)


def _compared(value: str, comparison: Comparison, wanted: Scalar, parameters: Parameters) -> str:
    operator = _OPERATORS[comparison]
    other_type = "true" if comparison is Comparison.NE else "false"
    if isinstance(wanted, bool):
        kind, condition = "boolean", f"({value})::boolean {operator} {parameters.add(wanted, 'boolean')}"
    elif isinstance(wanted, int | float):
        # The shortest exact form of a float, as in the definition: 0.1 means 0.1 and not its binary neighbour.
        number = parameters.add(Decimal(repr(wanted)), "numeric")
        kind, condition = "number", f"({value})::numeric {operator} {number}"
    else:
        text = parameters.add(wanted, "text")
        kind, condition = "string", f"(({value}) #>> '{{}}') COLLATE \"C\" {operator} {text}"
    # CASE keeps the cast away from values it does not fit; a condition may otherwise be evaluated in any order.
    typed = f"CASE jsonb_typeof({value}) WHEN '{kind}' THEN {condition} ELSE {other_type} END"
    return f"COALESCE(({value}) IS NOT NULL AND {typed}, false)"

"""The filter from and to the wire."""

from __future__ import annotations

import math
from collections.abc import Callable

from soma.memory.v1 import filter_pb2 as pb
from soma_contract import filters as ast
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import kind_from_pb, kind_to_pb, timestamp
from soma_contract.filters import Comparison, Filter, LabelField, NumberField, Scalar, TimeField
from soma_contract.limits import LIMITS
from soma_contract.memory import Kind

_LABELS = {
    "memory_id": LabelField.MEMORY_ID,
    "namespace": LabelField.NAMESPACE,
    "key": LabelField.KEY,
    "schema_type": LabelField.SCHEMA_TYPE,
    "persona_id": LabelField.PERSONA,
    "actor": LabelField.ACTOR,
    "session_id": LabelField.SESSION,
}
_COMPARISONS = {
    pb.PAYLOAD_COMPARISON_EQ: Comparison.EQ,
    pb.PAYLOAD_COMPARISON_NE: Comparison.NE,
    pb.PAYLOAD_COMPARISON_LT: Comparison.LT,
    pb.PAYLOAD_COMPARISON_LE: Comparison.LE,
    pb.PAYLOAD_COMPARISON_GT: Comparison.GT,
    pb.PAYLOAD_COMPARISON_GE: Comparison.GE,
    pb.PAYLOAD_COMPARISON_EXISTS: Comparison.EXISTS,
    pb.PAYLOAD_COMPARISON_IN: Comparison.IN,
}
_COMPARISONS_PB = {domain: wire for wire, domain in _COMPARISONS.items()}
_TIMES = {
    pb.TIME_FIELD_OCCURRED: TimeField.OCCURRED,
    pb.TIME_FIELD_CREATED: TimeField.CREATED,
    pb.TIME_FIELD_UPDATED: TimeField.UPDATED,
}
_TIMES_PB = {domain: wire for wire, domain in _TIMES.items()}
_NUMBERS = {
    pb.NUMBER_FIELD_IMPORTANCE: NumberField.IMPORTANCE,
    pb.NUMBER_FIELD_RELEVANCE: NumberField.RELEVANCE,
}
_NUMBERS_PB = {domain: wire for wire, domain in _NUMBERS.items()}


def filter_from_pb(wire: pb.Filter, checks: Checks, path: str = "filter") -> Filter:
    """Read a filter; one without a condition matches everything."""
    return _Reader(checks).read(wire, path, 1)


class _Reader:
    """Reads one filter, counting its nodes."""

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self.nodes = 0

    def read(self, wire: pb.Filter, path: str, depth: int) -> Filter:
        self.nodes += 1
        if self.nodes > LIMITS.filter_nodes or depth > LIMITS.filter_depth:
            if self.nodes == LIMITS.filter_nodes + 1 or depth == LIMITS.filter_depth + 1:
                self.checks.fail(
                    path, f"filters have at most {LIMITS.filter_nodes} nodes and {LIMITS.filter_depth} levels"
                )
            return ast.EVERYTHING
        which = wire.WhichOneof("condition")
        if which is None:
            return ast.EVERYTHING
        at = f"{path}.{which}"
        if which in _LABELS:
            return ast.LabelIn(_LABELS[which], self._values(getattr(wire, which), at, which))
        readers: dict[str, Callable[[], Filter]] = {
            "all_of": lambda: ast.AllOf(self._operands(wire.all_of, at, depth)),
            "any_of": lambda: ast.AnyOf(self._operands(wire.any_of, at, depth)),
            "none_of": lambda: ast.NoneOf(self._operands(wire.none_of, at, depth)),
            "key_prefix": lambda: ast.KeyPrefix(self.checks.required(at, wire.key_prefix)),
            "kind": lambda: ast.LabelIn(LabelField.KIND, self._kinds(wire.kind, at)),
            "tags_any": lambda: ast.TagsAny(self._values(wire.tags_any, at, which)),
            "tags_all": lambda: ast.TagsAll(self._values(wire.tags_all, at, which)),
            "payload": lambda: self._payload(wire.payload, at),
            "time": lambda: self._time(wire.time, at),
            "number": lambda: self._number(wire.number, at),
        }
        return readers[which]()

    def _operands(self, wire: pb.FilterList, path: str, depth: int) -> tuple[Filter, ...]:
        return tuple(
            self.read(operand, f"{path}.filters[{position}]", depth + 1)
            for position, operand in enumerate(wire.filters)
        )

    def _values(self, wire: pb.StringSet, path: str, which: str) -> tuple[str, ...]:
        at = f"{path}.values"
        if not 1 <= len(wire.values) <= LIMITS.filter_values:
            self.checks.fail(at, f"must hold 1 to {LIMITS.filter_values} values")
            return ()
        check = {"memory_id": self.checks.memory_id, "namespace": self.checks.namespace}.get(which, self.checks.text)
        return tuple(check(f"{at}[{position}]", value) for position, value in enumerate(wire.values))

    def _kinds(self, wire: pb.KindSet, path: str) -> tuple[str, ...]:
        if not wire.values:
            self.checks.fail(f"{path}.values", "must not be empty")
        return tuple(
            kind_from_pb(value, self.checks, f"{path}.values[{position}]").value
            for position, value in enumerate(wire.values)
        )

    def _payload(self, wire: pb.PayloadCondition, path: str) -> Filter:
        comparison = _COMPARISONS.get(wire.comparison)
        if comparison is None:
            self.checks.fail(f"{path}.comparison", "is not a known comparison")
            return ast.EVERYTHING
        names = self.checks.labels(f"{path}.path", wire.path, LIMITS.json_depth, least=1)
        least, most = {Comparison.EXISTS: (0, 0), Comparison.IN: (1, LIMITS.filter_values)}.get(comparison, (1, 1))
        if not least <= len(wire.values) <= most:
            self.checks.fail(f"{path}.values", f"must hold {least} to {most} values for {comparison.value}")
        values = [self._scalar(value, f"{path}.values[{position}]") for position, value in enumerate(wire.values)]
        return ast.PayloadCompare(names, comparison, tuple(value for value in values if value is not None))

    def _scalar(self, wire: pb.ScalarValue, path: str) -> Scalar | None:
        which = wire.WhichOneof("scalar")
        if which is None:
            self.checks.fail(path, "give one value")
            return None
        value: Scalar = getattr(wire, which)
        if isinstance(value, str):
            self.checks.text(f"{path}.string_value", value, LIMITS.text_bytes)
        if isinstance(value, float) and not math.isfinite(value):
            self.checks.fail(f"{path}.double_value", "must be a finite number")
            return None
        return value

    def _time(self, wire: pb.TimeRange, path: str) -> Filter:
        field = _TIMES.get(wire.field)
        if field is None:
            self.checks.fail(f"{path}.field", "is not a known time")
            return ast.EVERYTHING
        start = self.checks.time(f"{path}.start_time", wire.HasField("start_time"), wire.start_time)
        end = self.checks.time(f"{path}.end_time", wire.HasField("end_time"), wire.end_time)
        if not wire.HasField("start_time") and not wire.HasField("end_time"):
            self.checks.fail(path, "set start_time or end_time")
        return ast.TimeRange(field, start, end)

    def _number(self, wire: pb.NumberRange, path: str) -> Filter:
        field = _NUMBERS.get(wire.field)
        if field is None:
            self.checks.fail(f"{path}.field", "is not a known number")
            return ast.EVERYTHING
        low = self.checks.number(f"{path}.low", wire.HasField("low"), wire.low)
        high = self.checks.number(f"{path}.high", wire.HasField("high"), wire.high)
        if not wire.HasField("low") and not wire.HasField("high"):
            self.checks.fail(path, "set low or high")
        return ast.NumberRange(field, low, high)


def filter_to_pb(node: Filter) -> pb.Filter:
    """Write a filter."""
    match node:
        case ast.AllOf(operands):
            return pb.Filter(all_of=pb.FilterList(filters=map(filter_to_pb, operands)))
        case ast.AnyOf(operands):
            return pb.Filter(any_of=pb.FilterList(filters=map(filter_to_pb, operands)))
        case ast.NoneOf(operands):
            return pb.Filter(none_of=pb.FilterList(filters=map(filter_to_pb, operands)))
        case ast.LabelIn(LabelField.KIND, values):
            return pb.Filter(kind=pb.KindSet(values=[kind_to_pb(Kind(value)) for value in values]))
        case ast.LabelIn(field, values):
            wire = pb.Filter()
            getattr(wire, field.value).values.extend(values)
            return wire
        case ast.KeyPrefix(prefix):
            return pb.Filter(key_prefix=prefix)
        case ast.TagsAny(tags):
            return pb.Filter(tags_any=pb.StringSet(values=tags))
        case ast.TagsAll(tags):
            return pb.Filter(tags_all=pb.StringSet(values=tags))
        case ast.PayloadCompare(path, comparison, values):
            return pb.Filter(
                payload=pb.PayloadCondition(
                    path=path, comparison=_COMPARISONS_PB[comparison], values=map(_scalar_to_pb, values)
                )
            )
        case ast.TimeRange(time_field, start, end):
            return pb.Filter(
                time=pb.TimeRange(field=_TIMES_PB[time_field], start_time=timestamp(start), end_time=timestamp(end))
            )
        case ast.NumberRange(number_field, low, high):
            return pb.Filter(number=pb.NumberRange(field=_NUMBERS_PB[number_field], low=low, high=high))


def _scalar_to_pb(value: Scalar) -> pb.ScalarValue:
    match value:
        case bool():
            return pb.ScalarValue(bool_value=value)
        case int():
            return pb.ScalarValue(int_value=value)
        case float():
            return pb.ScalarValue(double_value=value)
        case _:
            return pb.ScalarValue(string_value=value)

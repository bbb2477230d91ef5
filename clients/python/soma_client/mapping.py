"""Rows of any table as memories: which column is which field, and how a column's values are read.

Without a mapping a column of a field's name is that field.  What is named by nothing goes into the payload, so that
nothing is lost without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson

from soma.batch.v1 import batch_service_pb2 as pb
from soma.memory.v1 import memory_pb2
from soma_client.record_json import LINK_FIELDS, LINK_TIMES, MEMORY_FIELDS, TIMES, record_of
from soma_contract.convert.memories import timestamp
from soma_contract.errors import FieldViolationError

_NESTED = ("provenance.author", "provenance.source", "provenance.confidence")
FIELDS = frozenset(MEMORY_FIELDS | {*_NESTED, "payload"})
"""What a column can be."""
_LINK_ONLY = frozenset(LINK_FIELDS - MEMORY_FIELDS)
_NUMBERS = frozenset({"importance", "relevance", "provenance.confidence", "strength"})
_COUNTS = frozenset({"sequence", "version"})
_VECTORS = frozenset({"embedding", "coordinate"})
_MILLISECONDS_FROM = 1e11
"""A larger number of a time counts milliseconds: as seconds it lies after the year 5000."""


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """How rows become memories.

    ``columns`` maps fields to columns (a dotted name reaches into objects), ``constants`` fields to values that every
    memory gets.  ``rest`` says what happens to other columns: ``payload`` or ``ignore``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    rest: str = "payload"

    def __post_init__(self) -> None:
        for name in (*self.columns, *self.constants):
            if name not in FIELDS:
                raise FieldViolationError.at("mapping", f"{name!r} is no field of a memory")
        if self.rest not in ("payload", "ignore"):
            raise FieldViolationError.at("mapping", "the rest goes to payload or ignore")

    @property
    def given(self) -> bool:
        """Whether anything was chosen."""
        return bool(self.columns or self.constants)

    def describe(self) -> str:
        """As a text that differs where rows would be read differently."""
        return f"{sorted(self.columns.items())} {sorted(self.constants.items())} {self.rest}"

    def record(self, row: Mapping[str, Any]) -> pb.Record:
        """Read a row; raises FieldViolationError with the field's path."""
        if row.get("record") == "link":
            return record_of({"link": {name: _plain(name, row.get(name)) for name in LINK_FIELDS if _given(row, name)}})
        found, rest = self._split(row)
        found.update(self.constants)
        wire = memory_pb2.Memory()
        for name, value in found.items():
            _set(wire, name, value)
        if rest and self.rest == "payload":
            _join_payload(wire, rest)
        return pb.Record(memory=wire)

    def _split(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(fields, the rest)."""
        found: dict[str, Any] = {}
        taken = {column.split(".")[0] for column in self.columns.values()}
        rest = {}
        for column, value in row.items():
            if value is None or value == "" or column is None:
                continue
            if column in FIELDS and column not in self.columns and column not in taken:
                found[column] = value
            elif column not in taken and column != "record" and column not in _LINK_ONLY:
                rest[column] = value
        for name, column in self.columns.items():
            value = _reached(row, column)
            if value is not None and value != "":
                found[name] = value
        return found, rest


BY_NAME = FieldMapping()
"""Columns are fields where they are named like one."""


def _given(row: Mapping[str, Any], name: str) -> bool:
    return row.get(name) not in (None, "")


def _reached(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _set(wire: memory_pb2.Memory, name: str, value: Any) -> None:
    path = f"memory.{'payload_json' if name == 'payload' else name}"
    try:
        if name in TIMES:
            getattr(wire, name).CopyFrom(timestamp(as_time(value)))
        elif name in _NUMBERS:
            target = wire.provenance if "." in name else wire
            setattr(target, name.rpartition(".")[2], _number(value))
        elif name in _COUNTS:
            setattr(wire, name, _count(value))
        elif name == "kind":
            wire.kind = _kind(value)
        elif name == "tags":
            wire.tags.extend(_tags(value))
        elif name in _VECTORS:
            _set_vector(wire, name, value)
        elif name == "provenance":
            for part, inner in _object(value).items():
                if inner is not None and inner != "":
                    _set(wire, f"provenance.{part}", inner)
        elif name in ("payload", "payload_json"):
            wire.payload_json = value if isinstance(value, str) else _json(value)
        elif name in _NESTED:
            setattr(wire.provenance, name.rpartition(".")[2], _text(value))
        else:
            setattr(wire, name, _text(value))
    except (AttributeError, TypeError, ValueError, OverflowError, OSError) as error:
        raise FieldViolationError.at(path, str(error)) from None


def _join_payload(wire: memory_pb2.Memory, rest: dict[str, Any]) -> None:
    if not wire.payload_json:
        wire.payload_json = _json(rest)
        return
    try:
        given = orjson.loads(wire.payload_json)
    except orjson.JSONDecodeError:
        return  # refused for what it is
    if isinstance(given, dict):
        wire.payload_json = _json({**rest, **given})


# --- values --------------------------------------------------------------------------------------


def as_time(value: Any) -> datetime:
    """A time: ISO 8601 (UTC where it names no zone), or seconds or milliseconds since 1970; raises ValueError."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        number = float(value)
    except (TypeError, ValueError):
        try:
            return as_time(datetime.fromisoformat(str(value).strip()))
        except ValueError:
            raise ValueError(f"is not a time: {_shown(value)}") from None
    if not math.isfinite(number):
        raise ValueError("is not a time")
    return datetime.fromtimestamp(number / 1e3 if abs(number) >= _MILLISECONDS_FROM else number, UTC)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple):
        return _json(value)
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"is not a number: {_shown(value)}") from None


def _count(value: Any) -> int:
    number = _number(value)
    if not number.is_integer():
        raise ValueError(f"is not a whole number: {_shown(value)}")
    return int(value) if isinstance(value, int | str) and "." not in str(value) else int(number)


def _kind(value: Any) -> memory_pb2.Kind.ValueType:
    name = str(value).upper().removeprefix("KIND_")
    try:
        return memory_pb2.Kind.Value(f"KIND_{name}")
    except ValueError:
        raise ValueError(f"must be episodic, semantic or procedural, not {_shown(value)}") from None


def _tags(value: Any) -> list[str]:
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            return _tags(_loaded(value))
        parts = value.split(";") if ";" in value else value.split(",")
        value = [part.strip() for part in parts if part.strip()]
    return list(dict.fromkeys(_text(each) for each in value))


def _set_vector(wire: memory_pb2.Memory, name: str, value: Any) -> None:
    if isinstance(value, str):
        value = _loaded(value)
    if isinstance(value, Mapping):
        nested = record_of({name: dict(value)}).memory
        wire.MergeFrom(nested)
        return
    import numpy as np

    if name == "coordinate":
        wire.coordinate.values.extend(float(each) for each in value)
    else:
        wire.embedding.packed_f32 = value if isinstance(value, bytes) else np.asarray(value, "<f4").tobytes()


def _object(value: Any) -> Mapping[str, Any]:
    found = _loaded(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise TypeError("is not an object")
    return found


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None


def _plain(name: str, value: Any) -> Any:
    """A link's value as JSON has it."""
    if name in LINK_TIMES:
        try:
            return as_time(value).isoformat()
        except ValueError as error:
            raise FieldViolationError.at(f"link.{name}", str(error)) from None
    try:
        if name in _NUMBERS:
            return _number(value)
        return _count(value) if name in _COUNTS else _text(value)
    except ValueError as error:
        raise FieldViolationError.at(f"link.{name}", str(error)) from None


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_jsonable).decode()


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        raise TypeError("bytes have no place in a payload; map or ignore this column")
    return str(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

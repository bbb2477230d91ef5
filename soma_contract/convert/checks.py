"""Collects field violations while a request is parsed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from soma.common.v1 import types_pb2 as common
from soma_contract.coordinate import parse_coordinate
from soma_contract.errors import FieldViolationError, Violation
from soma_contract.ids import parse_memory_id
from soma_contract.json_rules import JsonRuleError, check_text, parse_payload
from soma_contract.limits import LIMITS
from soma_contract.memory import DEFAULT_NAMESPACE, Coordinate, Vector

NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S = int(datetime(LIMITS.min_year, 1, 1, tzinfo=UTC).timestamp())
_LAST_S = int(datetime(LIMITS.max_year + 1, 1, 1, tzinfo=UTC).timestamp())


class Checks:
    """Notes what is wrong with a request; :meth:`done` raises all of it."""

    __slots__ = ("default_namespace", "violations")

    def __init__(self, default_namespace: str = DEFAULT_NAMESPACE) -> None:
        self.default_namespace = default_namespace or DEFAULT_NAMESPACE
        self.violations: list[Violation] = []

    def fail(self, path: str, description: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(path, description))

    def done(self) -> None:
        """Raise FieldViolationError if anything was noted."""
        if self.violations:
            raise FieldViolationError(violations=self.violations)

    def text(self, path: str, value: str, max_bytes: int = LIMITS.label_bytes) -> str:
        """Check a text: size in UTF-8 bytes, no NUL."""
        # Most labels are short ASCII: settle them without encoding.
        if (len(value) > max_bytes or not value.isascii() or "\x00" in value) and (
            problem := check_text(value, max_bytes)
        ):
            self.fail(path, problem)
        return value

    def required(self, path: str, value: str, max_bytes: int = LIMITS.label_bytes) -> str:
        """Check a text that must not be empty."""
        if not value:
            self.fail(path, "is required")
        return self.text(path, value, max_bytes)

    def namespace(self, path: str, value: str) -> str:
        """Check a namespace's name; empty is the default one."""
        if value and not NAMESPACE.fullmatch(value):
            self.fail(path, "must be 1-63 of a-z, 0-9, '.', '_', '-', the first a letter or digit")
        return value or self.default_namespace

    def memory_id(self, path: str, value: str) -> str:
        """Check an id and return its canonical form; empty stays empty."""
        if not value:
            return ""
        try:
            return parse_memory_id(value)
        except ValueError as error:
            self.fail(path, str(error))
            return value

    def payload(self, path: str, value: str) -> str:
        """Check a JSON object; empty is none."""
        if value:
            try:
                parse_payload(value)
            except JsonRuleError as error:
                self.fail(path, str(error))
        return value

    def time(self, path: str, present: bool, value: Timestamp) -> datetime | None:
        """Check a time and return it to the microsecond."""
        if not present:
            return None
        if not _FIRST_S <= value.seconds < _LAST_S or not 0 <= value.nanos < 1_000_000_000:
            self.fail(path, f"must lie in the years {LIMITS.min_year} to {LIMITS.max_year}")
            return None
        return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1_000)

    def ttl(self, path: str, present: bool, value: Duration) -> float | None:
        """Check a time to live and return its seconds."""
        if not present:
            return None
        seconds = value.seconds + value.nanos / 1e9
        if not 0.001 <= seconds <= LIMITS.ttl_max_s:
            self.fail(path, "must be from 1 ms to 100 years")
            return None
        return seconds

    def number(
        self, path: str, present: bool, value: float, low: float = -math.inf, high: float = math.inf
    ) -> float | None:
        """Check a finite number within bounds."""
        if not present:
            return None
        if not math.isfinite(value):
            self.fail(path, "must be a finite number")
            return None
        if not low <= value <= high:
            self.fail(path, f"must be from {low:g} to {high:g}")
            return None
        return value

    def count(self, path: str, value: int, high: int, default: int) -> int:
        """Check a count from 1 to ``high``; 0 is the default."""
        if not 0 <= value <= high:
            self.fail(path, f"must be from 1 to {high}; 0 is {default}")
        return value or default

    def page_size(self, path: str, value: int) -> int:
        """Check a page size; 0 is the default, more than the largest is the largest."""
        if value < 0:
            self.fail(path, "must not be negative")
        return min(value, LIMITS.page_size) if value > 0 else LIMITS.page_size_default

    def labels(self, path: str, values: Sequence[str], most: int, *, least: int = 0) -> tuple[str, ...]:
        """Check a set of labels: their number, size, and that none is empty."""
        if not least <= len(values) <= most:
            self.fail(path, f"must hold {least} to {most} values")
        for position, value in enumerate(values):
            self.required(f"{path}[{position}]", value)
        return tuple(values)

    def coordinate(self, path: str, value: common.Coordinate) -> Coordinate:
        """Check a coordinate."""
        try:
            return parse_coordinate(list(value.values))
        except ValueError as error:
            self.fail(f"{path}.values", str(error))
            return (0.0, 0.0, 0.0)

    def vector(self, path: str, value: common.Vector) -> Vector | None:
        """Check a vector: dimension, all finite, not all zero."""
        which = value.WhichOneof("encoding")
        if which == "packed_f32":
            if len(value.packed_f32) % 4:
                self.fail(f"{path}.packed_f32", "must hold four bytes a component")
                return None
            vector = Vector(value.packed_f32)
        elif which == "values":
            with np.errstate(over="ignore"):
                vector = Vector.of(list(value.values.values))
        else:
            self.fail(path, "give packed_f32 or values")
            return None
        if not 1 <= vector.dimension <= LIMITS.dimensions:
            self.fail(path, f"must have 1 to {LIMITS.dimensions} components")
            return None
        array = vector.array
        # Within these bounds float32 is exact enough to tell; what is outside, and NaN, is looked at again.
        if 1e-20 < float(array @ array) < 1e30:
            return vector
        norm = float(np.linalg.norm(array.astype(np.float64)))
        if not math.isfinite(norm):
            self.fail(path, "must have finite components")
            return None
        if norm < 1e-30:
            self.fail(path, "must not be all zero")
            return None
        return vector

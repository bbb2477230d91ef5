"""Memories as JSON lines: one object a line, in the contract's own field names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson
from google.protobuf.json_format import ParseDict, ParseError

from soma.memory.v1 import memory_pb2
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import memory_from_pb
from soma_contract.errors import FieldViolationError, field_path
from soma_contract.memory import Memory


def read_records(lines: Iterable[str]) -> Iterator[Memory]:
    """The memories of some lines, empty ones aside; raises FieldViolationError with the line in the path."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        with field_path(f"line {number}"):
            yield read_record(line)


def read_record(line: str) -> Memory:
    """One memory; raises FieldViolationError."""
    try:
        wire = ParseDict(orjson.loads(line), memory_pb2.Memory())
    except (orjson.JSONDecodeError, ParseError) as error:
        raise FieldViolationError.at("", f"is not a memory in JSON: {error}") from None
    checks = Checks()
    memory = memory_from_pb(wire, checks, "memory")
    checks.done()
    return memory

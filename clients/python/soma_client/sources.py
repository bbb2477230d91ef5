"""Where the records of an import come from: files whose records are found again at any place.

A :class:`Source` hands out items, unread, from any mark on, and reads each of them apart: finding the ten thousandth
record costs no more than finding where it stands, and one that cannot be read is told as such in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.record_json import object_of, record_of_line
from soma_contract.convert.links import link_to_pb
from soma_contract.convert.memories import memory_to_pb
from soma_contract.errors import FieldViolationError
from soma_contract.memory import Memory, View
from soma_contract.records import Record

_ENDS = 64 * 1024
_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is no record: it is refused without being held in memory."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two records: how many come before it, and where the source finds it again."""

    offset: int = 0
    at: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One record, unread: what stands there, how a person finds it, and where the next one begins."""

    value: object
    place: str
    after: tuple[int, ...]


class Source(Protocol):
    """Records that can be gone through again from any mark."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    @property
    def size(self) -> int:
        """How much there is, in units of its own; 0 if nobody knows."""
        ...

    def reached(self, at: tuple[int, ...]) -> int:
        """How much of ``size`` lies before a place."""
        ...

    def fingerprint(self) -> str:
        """The same text as long as the same records stand at the same marks."""
        ...

    def items(self, at: tuple[int, ...] = ()) -> Iterator[Item]:
        """The items from a place on."""
        ...

    def record(self, value: object) -> pb.Record:
        """Read an item's value; raises FieldViolationError, which refuses this record and no other."""
        ...


# --- files ---------------------------------------------------------------------------------------


class Format(Protocol):
    """How records stand in one kind of file."""

    def describe(self) -> str:
        """Everything that decides which records a file holds, as a text."""
        ...

    def size(self, path: Path) -> int:
        """How much a file holds, in the unit of the first number of ``after``."""
        ...

    def items(self, path: Path, at: tuple[int, ...]) -> Iterator[Item]:
        """The items of a file from a place on; raises FieldViolationError for a file of another kind."""
        ...

    def record(self, value: object) -> pb.Record:
        """Read an item's value; raises FieldViolationError."""
        ...


class Files:
    """A source of one or more files of one format, one after the other."""

    def __init__(self, paths: Sequence[Path], format: Format) -> None:
        self._paths = tuple(paths)
        self._format = format
        self._sizes = [format.size(path) for path in self._paths]

    @property
    def name(self) -> str:
        """The first file, and how many more."""
        more = f" and {len(self._paths) - 1} more" if len(self._paths) > 1 else ""
        return f"{self._paths[0].name}{more}"

    @property
    def size(self) -> int:
        """The sizes of all files."""
        return sum(self._sizes)

    def reached(self, at: tuple[int, ...]) -> int:
        """What lies in the files before, and before the place in its file."""
        return sum(self._sizes[: at[0]]) + (at[1] if len(at) > 1 else 0) if at else 0

    def fingerprint(self) -> str:
        """From the files' sizes and what they begin and end with."""
        digest = hashlib.blake2b(self._format.describe().encode(), digest_size=16)
        for path in self._paths:
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(f"{size}\0".encode() + file.read(_ENDS))
                file.seek(max(0, size - _ENDS))
                digest.update(file.read(_ENDS))
        return digest.hexdigest()

    def items(self, at: tuple[int, ...] = ()) -> Iterator[Item]:
        """The items of one file after the other."""
        first = at[0] if at else 0
        for number in range(first, len(self._paths)):
            path = self._paths[number]
            for item in self._format.items(path, at[1:] if number == first else ()):
                yield Item(item.value, f"{path.name}:{item.place}", (number, *item.after))

    def record(self, value: object) -> pb.Record:
        """As the format reads it."""
        return self._format.record(value)


class JsonLines:
    """One JSON object a line, in the contract's field names; empty lines aside."""

    def describe(self) -> str:
        """Nothing about it can be chosen."""
        return "jsonl"

    def size(self, path: Path) -> int:
        """In bytes."""
        return path.stat().st_size

    def items(self, path: Path, at: tuple[int, ...]) -> Iterator[Item]:
        """Lines; a place is (byte, line number)."""
        position, number = at or (0, 0)
        with path.open("rb") as file:
            file.seek(position)
            while line := file.readline(_LINE_BYTES):
                position += len(line)
                number += 1
                value: object = line
                if len(line) == _LINE_BYTES and not line.endswith(b"\n"):
                    value = Unreadable(f"is longer than {_LINE_BYTES // 2**20} MiB")
                    while rest := file.readline(_LINE_BYTES):
                        position += len(rest)
                        if rest.endswith(b"\n"):
                            break
                elif not line.strip():
                    continue
                yield Item(value, str(number), (position, number))

    def record(self, value: object) -> pb.Record:
        """Parse a line."""
        return record_of_line(line_of_value(value))


class Unreadable:
    """Stands for an item that could not be read, says why, and holds what of it was kept."""

    def __init__(self, problem: str, value: object = None) -> None:
        self.problem = problem
        self.value = value


def row_of(value: object) -> Mapping[str, Any]:
    """A row that could be read; raises FieldViolationError for any other."""
    if isinstance(value, Unreadable):
        raise FieldViolationError.at("record", value.problem)
    assert isinstance(value, Mapping)
    return value


def line_of_value(value: object) -> bytes:
    """The bytes of a line; raises FieldViolationError for one that was too long to keep."""
    if isinstance(value, Unreadable):
        raise FieldViolationError.at("record", value.problem)
    assert isinstance(value, bytes)
    return value.removeprefix(b"\xef\xbb\xbf")


def original(value: object) -> object:
    """What stood in the source, as something JSON can hold; None if it was not kept."""
    if isinstance(value, bytes):
        text = value.decode(errors="replace").rstrip("\r\n")
        try:
            return json.loads(text)
        except ValueError:
            return text
    if isinstance(value, pb.Record):
        return object_of(value)
    return value.value if isinstance(value, Unreadable) else value


# --- what is in memory already -------------------------------------------------------------------


class Listed:
    """A source of memories and links that a program has at hand."""

    def __init__(self, records: Sequence[Record | pb.Record], name: str = "records") -> None:
        self._records = records
        self._name = name

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """Their number."""
        return len(self._records)

    def reached(self, at: tuple[int, ...]) -> int:
        """Records before a place."""
        return at[0] if at else 0

    def fingerprint(self) -> str:
        """From all records."""
        digest = hashlib.blake2b(b"listed", digest_size=16)
        for record in self._records:
            digest.update(self.record(record).SerializeToString(deterministic=True))
        return digest.hexdigest()

    def items(self, at: tuple[int, ...] = ()) -> Iterator[Item]:
        """From a place on."""
        for number in range(self.reached(at), len(self._records)):
            yield Item(self._records[number], str(number), (number + 1,))

    def record(self, value: object) -> pb.Record:
        """As the wire has it."""
        if isinstance(value, pb.Record):
            return value
        if isinstance(value, Memory):
            return pb.Record(memory=memory_to_pb(value, View.FULL))
        return pb.Record(link=link_to_pb(value))  # type: ignore[arg-type] # a Record is a memory or a link

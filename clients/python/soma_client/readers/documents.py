"""Files that are one JSON document, or one a line, read as rows of fields."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.mapping import FieldMapping
from soma_client.sources import Item, Unreadable, row_of
from soma_contract.errors import FieldViolationError
from soma_contract.ids import foreign_memory_id

Row = dict[str, Any]
"""Fields of a memory, named as in :data:`soma_client.mapping.FIELDS`, values as they stood."""
Rows = Callable[[Any], Iterator[tuple[str, Row]]]
"""From a document to (place, row); raises ValueError for a document of another form, KeyError and TypeError too."""


class Documents:
    """A format whose files are read as a whole; they must fit in memory several times over."""

    def __init__(self, name: str, rows: Rows, constants: Mapping[str, str]) -> None:
        self._name = name
        self._rows = rows
        self._mapping = FieldMapping(constants=constants)

    def describe(self) -> str:
        """Whose it is, and what is set."""
        return f"{self._name} {self._mapping.describe()}"

    def size(self, path: Path) -> int:
        """In bytes; the last item reaches it."""
        return path.stat().st_size

    def items(self, path: Path, at: tuple[int, ...]) -> Iterator[Item]:
        """Rows; a place is (bytes as a share of all, row)."""
        skip = at[1] if at else 0
        size = self.size(path)
        rows = list(self._read(path))
        for number, (place, row) in enumerate(rows[skip:], start=skip + 1):
            yield Item(row, place, (size * number // len(rows), number))

    def record(self, value: object) -> pb.Record:
        """Map a row."""
        return self._mapping.record(row_of(value))

    def _read(self, path: Path) -> Iterator[tuple[str, Any]]:
        try:
            for place, document in documents(path):
                if isinstance(document, Unreadable):
                    yield place, document
                    continue
                for inner, row in self._rows(document):
                    yield f"{place}{inner}", row
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            told = f"{path.name} is not an export of {self._name}: {type(error).__name__} {error}"
            raise FieldViolationError.at("file", told) from None


def documents(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, document): the file as one JSON document, or each of its lines; raises ValueError for neither."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        yield "", orjson.loads(content)
        return
    except orjson.JSONDecodeError as error:
        whole = error
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    try:
        orjson.loads(lines[0][1])
    except (IndexError, orjson.JSONDecodeError):
        raise ValueError(f"is not JSON: {whole}") from None
    for number, line in lines:
        try:
            yield f"line {number} ", orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield f"line {number}", Unreadable(f"is not JSON: {error}", line.decode(errors="replace"))


def known_id(*names: object) -> str:
    """The id of a foreign thing: its own if it is a UUID, else one derived from all the names."""
    try:
        return str(uuid.UUID(str(names[-1])))
    except ValueError:
        return foreign_memory_id(*map(str, names))


def kept(**fields: object) -> Row:
    """A row of what is not empty."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}

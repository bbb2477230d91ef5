"""Tables as sources: CSV, Parquet, and JSON lines whose fields are named otherwise."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.mapping import BY_NAME, FieldMapping
from soma_client.sources import Item, JsonLines, Unreadable, line_of_value, row_of
from soma_contract.errors import FieldViolationError, UnimplementedError

if TYPE_CHECKING:
    import pyarrow.parquet

_ROWS = 1_000
_CELL_BYTES = 1024 * 1024


class MappedLines(JsonLines):
    """JSON lines of other programs."""

    def __init__(self, mapping: FieldMapping) -> None:
        self._mapping = mapping

    def describe(self) -> str:
        """With the mapping."""
        return f"mapped jsonl {self._mapping.describe()}"

    def record(self, value: object) -> pb.Record:
        """Parse a line and map it."""
        try:
            row = orjson.loads(line_of_value(value))
        except orjson.JSONDecodeError as error:
            raise FieldViolationError.at("record", f"is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise FieldViolationError.at("record", "is not a JSON object")
        return self._mapping.record(row)


class Csv:
    """Comma-separated values, UTF-8, the first row names the columns; quoted cells may hold line breaks."""

    def __init__(self, mapping: FieldMapping = BY_NAME, delimiter: str = ",") -> None:
        self._mapping = mapping
        self._delimiter = delimiter
        csv.field_size_limit(_CELL_BYTES)

    def describe(self) -> str:
        """With delimiter and mapping."""
        return f"csv {self._delimiter!r} {self._mapping.describe()}"

    def size(self, path: Path) -> int:
        """In bytes."""
        return path.stat().st_size

    def items(self, path: Path, at: tuple[int, ...]) -> Iterator[Item]:
        """Rows as dicts; a place is (byte, line number)."""
        lines = _Lines(path)
        columns = next(csv.reader(lines, delimiter=self._delimiter), None)
        if columns is None:
            return
        if len(columns) != len(set(columns)):
            raise FieldViolationError.at("file", f"{path.name} names a column twice in its first row")
        if at:
            lines.go(*at)
        rows = csv.reader(lines, delimiter=self._delimiter)
        while True:
            number = lines.number + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                yield Item(Unreadable(f"is no row: {error}"), str(number), lines.at)
                rows = csv.reader(lines, delimiter=self._delimiter)
                continue
            if cells is None:
                return
            if not cells:
                continue
            value: object = dict(zip(columns, cells, strict=False))
            if len(cells) != len(columns):
                value = Unreadable(f"has {len(cells)} cells, the first row names {len(columns)} columns", cells)
            elif lines.undecodable:
                value = Unreadable("is not UTF-8", cells)
            lines.undecodable = False
            yield Item(value, str(number), lines.at)

    def record(self, value: object) -> pb.Record:
        """Map a row."""
        return self._mapping.record(row_of(value))


class _Lines(Iterator[str]):
    """The lines of a file as text, with the place behind the last one given out."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._position = len(codecs.BOM_UTF8) if self._file.read(3) == codecs.BOM_UTF8 else 0
        self._file.seek(self._position)
        self.number = 0
        self.undecodable = False

    @property
    def at(self) -> tuple[int, int]:
        return self._position, self.number

    def go(self, position: int, number: int) -> None:
        self._file.seek(position)
        self._position, self.number = position, number

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            self._file.close()
            raise StopIteration
        self._position += len(line)
        self.number += 1
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.undecodable = True
            return line.decode(errors="replace")


class Parquet:
    """Parquet files; nested columns are objects."""

    def __init__(self, mapping: FieldMapping = BY_NAME) -> None:
        self._mapping = mapping

    def describe(self) -> str:
        """With the mapping."""
        return f"parquet {self._mapping.describe()}"

    def size(self, path: Path) -> int:
        """In rows."""
        with self._opened(path) as file:
            rows: int = file.metadata.num_rows
            return rows

    def items(self, path: Path, at: tuple[int, ...]) -> Iterator[Item]:
        """Rows as dicts; a place is (row,)."""
        (skip,) = at or (0,)
        with self._opened(path) as file:
            number = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if number + rows <= skip:
                    number += rows
                    continue
                for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group]):
                    if number + batch.num_rows <= skip:
                        number += batch.num_rows
                        continue
                    for row in batch.to_pylist():
                        number += 1
                        if number > skip:
                            yield Item(row, str(number), (number,))

    def record(self, value: object) -> pb.Record:
        """Map a row."""
        return self._mapping.record(row_of(value))

    def _opened(self, path: Path) -> pyarrow.parquet.ParquetFile:
        parquet = need_parquet()
        import pyarrow

        try:
            return parquet.ParquetFile(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise FieldViolationError.at("file", f"{path.name} is not a Parquet file: {error}") from None


def need_parquet() -> pyarrow.parquet:
    """pyarrow's Parquet, which is an extra; raises UnimplementedError that names it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UnimplementedError("Parquet needs pyarrow: pip install 'soma-memory[parquet]'") from None
    return parquet

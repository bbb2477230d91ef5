"""From the arguments of import to a source."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from soma_client.mapping import FieldMapping
    from soma_client.sources import Files, Format

FORMATS = ("jsonl", "csv", "tsv", "parquet")
_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the options said of the files."""

    origin: str = "soma"
    format: str = ""
    columns: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    rest: str = "payload"


@contextmanager
def piped(files: Sequence[str], chosen: Chosen) -> Iterator[list[Path]]:
    """The files; standard input becomes one first, so that a lost connection can be made good."""
    if "-" not in files:
        yield [Path(name) for name in files]
        return
    with tempfile.NamedTemporaryFile(prefix="soma-import-", suffix=f".{chosen.format or 'jsonl'}") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield [Path(copy.name) if name == "-" else Path(name) for name in files]


def opened(paths: Sequence[Path], chosen: Chosen) -> Files:
    """The source of some files; wrong usage where they cannot be read so."""
    from soma_client.sources import Files

    for path in paths:
        if not path.is_file():
            raise typer.BadParameter(f"{path} is not there, or is no file", param_hint="FILE")
        _check_manifest(path)
    return Files(paths, _format(paths[0], chosen))


def _format(first: Path, chosen: Chosen) -> Format:
    from soma_client.readers import READERS
    from soma_client.sources import JsonLines
    from soma_client.tables import Csv, MappedLines, Parquet

    mapping = _mapping(chosen)
    if chosen.origin != "soma":
        if chosen.origin not in READERS:
            raise typer.BadParameter(f"must be one of soma, {', '.join(READERS)}", param_hint="--from")
        if chosen.columns or chosen.format:
            raise typer.BadParameter("has a form of its own: leave out --map and --format", param_hint="--from")
        return READERS[chosen.origin](mapping.constants)
    format = chosen.format or _ENDINGS.get(first.suffix.lower(), "")
    match format:
        case "jsonl":
            return MappedLines(mapping) if mapping.given else JsonLines()
        case "csv" | "tsv":
            return Csv(mapping, "," if format == "csv" else "\t")
        case "parquet":
            return Parquet(mapping)
    raise typer.BadParameter(f"must be one of {', '.join(FORMATS)}; {first.name} does not say", param_hint="--format")


def _mapping(chosen: Chosen) -> FieldMapping:
    from soma_client.mapping import FieldMapping
    from soma_contract.errors import FieldViolationError

    try:
        return FieldMapping(_pairs(chosen.columns, "--map"), _pairs(chosen.constants, "--set"), chosen.rest)
    except FieldViolationError as error:
        raise typer.BadParameter(error.violations[0].description, param_hint="--map, --set, --rest") from None


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not FIELD=...", param_hint=option)
        found[name] = value
    return found


def _check_manifest(path: Path) -> None:
    """Refuse a file that is not what its manifest says."""
    from soma_client.exporter import file_sha256, manifest_path

    try:
        expected = json.loads(manifest_path(path).read_text())["sha256"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise typer.BadParameter(f"{manifest_path(path)} is not a manifest", param_hint="FILE") from None
    if file_sha256(path) != expected:
        told = f"{path} was cut or changed: it is not what {manifest_path(path).name} says"
        raise typer.BadParameter(told, param_hint="FILE")

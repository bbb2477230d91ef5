"""The file that lets an import go on after its process ended: which job it feeds, and from which source."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from soma_client.sources import Mark
from soma_contract.errors import FieldViolationError

_VERSION = 1
START = Mark()


@dataclass(frozen=True, slots=True)
class ImportState:
    """What is known of an import that is not finished."""

    request_id: str
    """Under which the job was asked for: asking again finds the same job."""
    fingerprint: str
    """Of the source."""
    options: dict[str, object]
    """How the job was to go; a job cannot be changed."""
    import_id: str = ""
    """Empty until the server has answered."""
    mark: Mark = START
    """A place in the source at or before the committed offset."""

    def at(self, mark: Mark) -> ImportState:
        """The same, further on."""
        return replace(self, mark=mark)

    def check(self, fingerprint: str, options: dict[str, object]) -> None:
        """Raise FieldViolationError unless it belongs to this source and these options."""
        if self.fingerprint != fingerprint:
            raise FieldViolationError.at("state", "belongs to another source, or the source has changed since")
        for name, value in options.items():
            if self.options.get(name) != value:
                told = f"the import began with {name} = {self.options.get(name)!r}, which cannot be changed"
                raise FieldViolationError.at("state", told)


def read_state(path: Path) -> ImportState | None:
    """Read a state; None if there is no file, FieldViolationError if it is none of ours."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError):
        raise FieldViolationError.at("state", f"{path} is not the state of an import") from None
    try:
        if found.pop("version") != _VERSION:
            raise FieldViolationError.at("state", f"{path} was written by another version of this program")
        mark = found.pop("mark")
        return ImportState(**found, mark=Mark(int(mark["offset"]), tuple(map(int, mark["at"]))))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FieldViolationError.at("state", f"{path} is not the state of an import") from None


def write_state(path: Path, state: ImportState) -> None:
    """Write a state so that a crash leaves the old one or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w") as file:
        json.dump({"version": _VERSION, **asdict(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)

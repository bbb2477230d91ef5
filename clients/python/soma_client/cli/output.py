"""What a command that went well says: tables for people, the contract's JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from soma_contract.convert.memories import memory_to_pb
from soma_contract.memory import Memory, View

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """A console on stdout; without a terminal it neither colours nor cuts."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def document(value: object) -> None:
    """Write one JSON document, indented."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def line(value: object) -> None:
    """Write one JSON value on one line, for lists that may be long."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def wire(message: Message) -> dict[str, Any]:
    """A message of the contract as its JSON, field names as in the protos."""
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found


def whole(message: Message) -> dict[str, Any]:
    """The same with what is zero or empty, for messages that are states rather than values."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def memory(value: Memory, view: View = View.BASIC) -> dict[str, Any]:
    """A memory as the contract's JSON."""
    return wire(memory_to_pb(value, view))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write a plain table; a column that starts with ``>`` is flushed right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        # Identifiers are there to be copied: they are never folded.
        drawn.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=right or name == "id")
    for row in rows:
        drawn.add_row(*(Text(shown(cell)) for cell in row))
    target = console()
    if not sys.stdout.isatty():
        target.width = 200
    target.print(drawn)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values, one pair a line; empty values are left out."""
    kept = [(name, shown(value)) for name, value in pairs]
    width = max((len(name) for name, value in kept if value), default=0)
    for name, value in kept:
        if value:
            sys.stdout.write(f"{name:<{width}}  {value}\n")


def shown(value: object) -> str:
    """A value as a person reads it; nothing for None."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M")
        case str():
            return _printable(value)
        case list() | tuple() | set() | frozenset():
            return ", ".join(shown(each) for each in value)
        case _:
            return str(value)


def _printable(text: str) -> str:
    """Without what would steer a terminal; stored texts come from anywhere."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)

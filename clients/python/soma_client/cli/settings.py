"""The settings of both servers as tables: name, default, range, description."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin

import typer

from soma_client.cli.running import place_of


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable that a server reads."""

    name: str
    default: str
    range: str
    description: str


def settings(
    context: typer.Context,
    markdown: bool = typer.Option(False, "--markdown", help="As Markdown, for the documentation."),
) -> None:
    """Show every setting of both servers; each is an environment variable."""
    tables = _tables()
    if place_of(context).json:
        from soma_client.cli import output

        output.document({title: [asdict(each) for each in rows] for title, rows in tables.items()})
    elif markdown:
        sys.stdout.write(settings_markdown())
    else:
        from soma_client.cli import output

        for title, rows in tables.items():
            output.table(
                ("setting", "default", "range", "description"),
                [(each.name, each.default, each.range, each.description) for each in rows],
                title=title,
            )


def settings_markdown() -> str:
    """Both tables as Markdown."""
    return "\n".join(_markdown(title, rows) for title, rows in _tables().items())


def _tables() -> dict[str, list[Setting]]:
    from brain_server.settings import BrainSettings
    from memory_server.settings import MemorySettings

    return {"Memory server": list(_read(MemorySettings)), "Brain server": list(_read(BrainSettings))}


def _read(model: Any) -> Iterator[Setting]:
    """The fields of a pydantic settings class, in their order."""
    prefix = model.model_config.get("env_prefix", "")
    for name, field in model.model_fields.items():
        named = field.validation_alias if isinstance(field.validation_alias, str) else f"{prefix}{name}".upper()
        yield Setting(named, _default(field), _range(field), field.description or "")


def _default(field: Any) -> str:
    if field.is_required():
        return "(required)"
    value = field.default
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _range(field: Any) -> str:
    if choices := _choices(field.annotation):
        return ", ".join(choices)
    low = high = pattern = None
    for rule in field.metadata:
        low = getattr(rule, "ge", low)
        high = getattr(rule, "le", high)
        pattern = getattr(rule, "pattern", pattern)
    if pattern:
        return f"/{pattern}/"
    if low is None and high is None:
        return "true, false" if field.annotation is bool else ""
    return f"{'' if low is None else _number(low)} to {'' if high is None else _number(high)}".strip()


def _choices(annotation: Any) -> list[str]:
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _markdown(title: str, rows: list[Setting]) -> str:
    lines = [f"## {title}", "", "| setting | default | range | description |", "|---|---|---|---|"]
    for each in rows:
        cells = (f"`{each.name}`", f"`{each.default}`" if each.default else "", each.range, each.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"

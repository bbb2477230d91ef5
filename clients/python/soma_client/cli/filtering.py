"""The conditions that several commands share, as a filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import parse_time

if TYPE_CHECKING:
    from soma_contract.filters import Filter
    from soma_contract.memory import Kind

KIND = typer.Option("", "--kind", help="Only episodic, semantic or procedural memories.")
TAG = typer.Option([], "--tag", help="Only memories with this tag; more than once: with all of them.")
TYPE = typer.Option("", "--type", help="Only memories of this schema type.")
KEY_PREFIX = typer.Option("", "--key-prefix", help="Only memories whose key starts so.")
ACTOR = typer.Option("", "--actor", help="Only what this actor said or did.")
SINCE = typer.Option("", "--since", metavar="TIME", help="Only what occurred at or after this time.")
UNTIL = typer.Option("", "--until", metavar="TIME", help="Only what occurred before this time.")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What was given on the command line."""

    kind: str = ""
    tags: Sequence[str] = ()
    type: str = ""
    key_prefix: str = ""
    actor: str = ""
    since: str = ""
    until: str = ""

    def filter(self) -> Filter:
        """As a filter; no condition matches everything."""
        from soma_contract import filters as ast

        found: list[Filter] = []
        for field, value in (
            (ast.LabelField.KIND, self.kind and kind_of(self.kind).value),
            (ast.LabelField.SCHEMA_TYPE, self.type),
            (ast.LabelField.ACTOR, self.actor),
        ):
            if value:
                found.append(ast.LabelIn(field, (value,)))
        if self.tags:
            found.append(ast.TagsAll(tuple(self.tags)))
        if self.key_prefix:
            found.append(ast.KeyPrefix(self.key_prefix))
        start, end = parse_time(self.since, "--since"), parse_time(self.until, "--until")
        if start or end:
            found.append(ast.TimeRange(ast.TimeField.OCCURRED, start, end))
        return ast.AllOf(tuple(found))


def kind_of(text: str) -> Kind:
    """A kind by its name."""
    from soma_contract.memory import Kind

    try:
        return Kind(text.lower())
    except ValueError:
        raise typer.BadParameter("must be episodic, semantic or procedural", param_hint="--kind") from None

"""watch: the changes of a tenant as they are made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma.memory.v1 import watch_service_pb2 as pb
    from soma_client.client import SomaClient


def watch(
    context: typer.Context,
    after: int | None = typer.Option(
        None, "--after", min=0, metavar="REVISION", help="Changes since then; 0: all kept."
    ),
    links: bool = typer.Option(False, "--links", help="Links too."),
    ids_only: bool = typer.Option(False, "--ids-only", help="Only ids, versions, namespaces and keys."),
    state: Path | None = typer.Option(None, "--state", help="Remember here how far you have come, and go on there."),
    count: int = typer.Option(0, "--count", min=0, help="End after so many revisions; 0 never ends."),
) -> None:
    """Follow what changes, revision by revision; Ctrl-C ends it.

    A lost connection is taken up again, and no change is told twice. Without --namespace it is every namespace.
    """
    if after is None and state is not None and state.exists():
        try:
            after = int(state.read_text())
        except ValueError:
            raise typer.BadParameter(f"{state} holds no revision", param_hint="--state") from None

    async def work(soma: SomaClient) -> None:
        from soma_client.watcher import Watcher

        namespaces = [] if soma.namespace == "default" else [soma.namespace]
        watcher = Watcher(soma, after, namespaces=namespaces, include_links=links, ids_only=ids_only)
        told = 0
        try:
            async for change_set in watcher:
                _tell(change_set, as_json=place_of(context).json)
                if state is not None:
                    _keep(state, change_set.revision)
                told += 1
                if told == count:
                    return
        finally:
            await watcher.aclose()

    talk(context, work)


def _keep(state: Path, revision: int) -> None:
    fresh = state.with_name(f"{state.name}.new")
    fresh.write_text(f"{revision}\n")
    fresh.replace(state)


def _tell(change_set: pb.ChangeSet, *, as_json: bool) -> None:
    from soma_client.cli import output

    if as_json:
        output.line(output.wire(change_set))
    else:
        at = change_set.commit_time.ToDatetime()
        for change in change_set.changes:
            sys.stdout.write(f"{change_set.revision:>8}  {at:%Y-%m-%d %H:%M:%S}  {_said(change)}\n")
    sys.stdout.flush()


def _said(change: pb.Change) -> str:
    from soma.memory.v1 import watch_service_pb2 as pb
    from soma_client.cli.output import shown

    match change.WhichOneof("subject"):
        case "memory_stored":
            memory = change.memory_stored.memory
            text = "(no longer kept)" if change.memory_stored.redacted else shown(memory.text).replace("\n", " ")
            return f"stored    {memory.memory_id}  v{memory.version}  {memory.key or '-'}  {text[:120]}"
        case "memory_ended":
            ended = change.memory_ended
            return f"{_cause(ended.cause):<9} {ended.memory_id}  v{ended.version}  {ended.key or '-'}"
        case "link_stored":
            link = change.link_stored
            return f"linked    {link.source_id}  {link.relation} {link.strength:g}  {link.target_id}"
        case "link_ended":
            gone = change.link_ended
            return f"unlinked  {gone.source_id}  {gone.relation}  {gone.target_id}  ({_cause(gone.cause)})"
        case _:
            return pb.Change.DESCRIPTOR.name


def _cause(cause: pb.EndCause.ValueType) -> str:
    from soma.memory.v1 import watch_service_pb2 as pb

    return pb.EndCause.Name(cause).removeprefix("END_CAUSE_").lower()

"""components, info, whoami and index: what a running server says of itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import parse_duration_s, place_of, talk

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from soma_client.client import SomaClient

MEMORY_SERVER = typer.Option(False, "--memory-server", help="Ask the memory server instead of the brain.")

index = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The index; answered by the memory server.")


def components(context: typer.Context, memory_server: bool = MEMORY_SERVER) -> None:
    """Show how the stores and servers are; exits 3 if an essential one is down."""

    async def work(soma: SomaClient) -> None:
        from soma.admin.v1 import operator_service_pb2 as pb
        from soma_client.cli import output

        answer = await soma.operator.components()
        if place_of(context).json:
            output.document(output.wire(answer))
        else:
            rows = [
                (
                    each.name,
                    pb.ComponentState.Name(each.state).removeprefix("COMPONENT_STATE_").lower(),
                    f"{each.latency.ToNanoseconds() / 1e6:.1f}" if each.HasField("latency") else "",
                    each.since_time.ToDatetime(),
                    each.essential,
                    each.last_error,
                )
                for each in answer.components
            ]
            output.table(("component", "state", ">ms", "since", "essential", "last error"), rows)
        if any(each.essential and each.state == pb.COMPONENT_STATE_DOWN for each in answer.components):
            raise typer.Exit(3)

    talk(context, work, memory_server=memory_server)


def info(context: typer.Context, memory_server: bool = MEMORY_SERVER) -> None:
    """Show version, services and limits of a server."""

    async def work(soma: SomaClient) -> None:
        _show(await soma.operator.server_info(), as_json=place_of(context).json)

    talk(context, work, memory_server=memory_server)


def whoami(context: typer.Context, memory_server: bool = MEMORY_SERVER) -> None:
    """Show whom the server takes this key for."""

    async def work(soma: SomaClient) -> None:
        _show(await soma.operator.who_am_i(), as_json=place_of(context).json)

    talk(context, work, memory_server=memory_server)


@index.command("status")
def index_status(context: typer.Context) -> None:
    """Show how far the index is behind the truth, of --tenant or of all."""

    async def work(soma: SomaClient) -> None:
        _show(await soma.operator.index_status(place_of(context).tenant), as_json=place_of(context).json)

    talk(context, work, memory_server=True)


@index.command("pause")
def index_pause(
    context: typer.Context,
    during: str = typer.Option("", "--for", metavar="DURATION", help="Goes on by itself after: 10m if not given."),
) -> None:
    """Let the indexer rest; writes are acknowledged and recalled as ever."""
    _pause(context, True, parse_duration_s(during, "--for"))


@index.command("resume")
def index_resume(context: typer.Context) -> None:
    """Let the indexer go on."""
    _pause(context, False, None)


def _pause(context: typer.Context, paused: bool, max_pause_s: float | None) -> None:
    async def work(soma: SomaClient) -> None:
        answer = await soma.operator.pause_indexer(paused, max_pause_s)
        if place_of(context).json:
            _show(answer, as_json=True)
        elif paused:
            sys.stdout.write(f"paused until {answer.resume_time.ToDatetime():%H:%M:%S} UTC\n")
        else:
            sys.stdout.write("running\n")

    talk(context, work, memory_server=True)


def _show(message: Message, *, as_json: bool) -> None:
    from soma_client.cli import output

    document = output.whole(message)
    if as_json:
        output.document(document)
        return
    for name, value in document.items():
        if isinstance(value, dict):
            output.fields((f"{name}.{inner}", held) for inner, held in value.items())
        else:
            output.fields([(name, value)])

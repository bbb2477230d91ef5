"""top: both servers at a glance, again and again."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from soma_client.cli.place import Place
from soma_client.cli.running import place_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from soma_client.client import SomaClient

_LOOK_S = 3.0


def top(
    context: typer.Context,
    every: float = typer.Option(2.0, "--every", min=0.2, max=3600, metavar="SECONDS", help="Between two looks."),
    once: bool = typer.Option(False, "--once", help="Look once; exits 3 if neither server answers."),
) -> None:
    """Watch components, outbox, breakers and index; Ctrl-C ends it. JSON output is one look a line."""
    import asyncio

    asyncio.run(_watch(place_of(context), every, once))


async def _watch(place: Place, every: float, once: bool) -> None:
    import asyncio

    from rich.live import Live

    from soma_client.cli import output
    from soma_contract.errors import CredentialsMissingError

    if not place.key():
        raise CredentialsMissingError
    async with AsyncExitStack() as stack:
        brain = await stack.enter_async_context(place.connect())
        memory = await stack.enter_async_context(place.connect(memory_server=True))
        console = output.console()
        live = None
        if not place.json and not once and sys.stdout.isatty():
            live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
        while True:
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(_brain(brain)), group.create_task(_memory(memory))]
            seen = {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "brain": looks[0].result(),
                "memory_server": looks[1].result(),
            }
            if place.json:
                output.line(seen)
                sys.stdout.flush()
            elif live is not None:
                live.update(_drawn(seen), refresh=True)
            else:
                console.print(_drawn(seen))
            if once:
                if all("error" in seen[name] for name in ("brain", "memory_server")):
                    raise typer.Exit(3)
                return
            await asyncio.sleep(every)


async def _brain(soma: SomaClient) -> dict[str, Any]:
    from soma_client.cli import output
    from soma_contract.errors import SomaError

    try:
        await soma.ready(_LOOK_S)
        components = await soma.operator.components()
        outbox = await soma.operator.outbox()
        breakers = [output.whole(one) async for one in soma.operator.breakers(not_closed=True)]
    except SomaError as error:
        return {"target": soma.target, "error": error.message}
    told = output.whole(outbox)
    del told["tenants"]
    return {"target": soma.target, **output.wire(components), "outbox": told, "breakers_not_closed": breakers}


async def _memory(soma: SomaClient) -> dict[str, Any]:
    from soma_client.cli import output
    from soma_contract.errors import SomaError

    try:
        await soma.ready(_LOOK_S)
        components = await soma.operator.components()
        status = output.whole(await soma.operator.index_status())
    except SomaError as error:
        return {"target": soma.target, "error": error.message}
    return {"target": soma.target, **output.wire(components), "index": status}


def _drawn(seen: dict[str, Any]) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"soma  {seen['time']}", style="bold")]
    for name in ("brain", "memory_server"):
        one = seen[name]
        parts.append(Text(f"\n{name.replace('_', ' ')}  {one['target']}", style="bold"))
        if "error" in one:
            parts.append(Text(f"  {one['error']}", style="red"))
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("component", "state", "latency", "last error"):
            table.add_column(column)
        for component in one.get("components", []):
            state = component.get("state", "").removeprefix("COMPONENT_STATE_").lower()
            style = "green" if state == "healthy" else "red"
            table.add_row(
                component["name"],
                Text(state, style=style),
                component.get("latency", ""),
                Text(component.get("last_error", "")),
            )
        parts.append(table)
        parts += [Text(f"  {line}") for line in _lines(one)]
    return Group(*parts)


def _lines(one: dict[str, Any]) -> list[str]:
    if "outbox" in one:
        box = one["outbox"]
        waits = ", delivery waits for the breaker" if box["delivery_blocked"] else ""
        pending = f"{box['pending']} pending, {box['in_flight']} in flight, {box['delivered']} delivered"
        lines = [f"outbox   {pending}, {box['dead_letters']} dead letters{waits}"]
        states = [
            f"{each['dependency']}{' for ' + each['tenant'] if each['tenant'] else ''} "
            f"{each['state'].removeprefix('BREAKER_STATE_').lower()}"
            for each in one["breakers_not_closed"]
        ]
        return [*lines, f"breaker  {', '.join(states) or 'all closed'}"]
    index = one["index"]
    paused = ", paused" if index["paused"] else ""
    behind = f"{index['pending_rows']} rows behind, {index['poisoned_rows']} refused"
    return [f"index    {behind}, {index['rows_per_second']:.1f} a second{paused}"]

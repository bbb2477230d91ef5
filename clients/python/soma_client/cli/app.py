"""The commands of `soma` and its global options; what they do is loaded when it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from soma_client.cli import (
    brain,
    doctor,
    exporting,
    graph,
    importing,
    indexing,
    local,
    mcp,
    memories,
    servers,
    settings,
    tenants,
    top,
    watching,
    working,
)
from soma_client.cli import context as contexts
from soma_client.cli.options import hoisted
from soma_client.cli.place import BRAIN, MEMORY_SERVER, Place

EPILOG = """\
EXIT CODES  0 done · 1 refused or not found · 2 wrong usage · 3 unavailable, try later · 4 not allowed · 5 fault.

Global options may stand anywhere. Without --api-key and SOMA_KEY the development key of the data directory is used.
"""

app = typer.Typer(
    name="soma",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def soma(
    context: typer.Context,
    target: str = typer.Option(BRAIN, "--target", envvar="SOMA_TARGET", help="The brain, or a memory server."),
    memory_target: str = typer.Option(
        MEMORY_SERVER,
        "--memory-target",
        envvar="SOMA_MEMORY_TARGET",
        help="The memory server, for tenants, keys and the index.",
    ),
    api_key: str = typer.Option("", "--api-key", envvar="SOMA_KEY", show_envvar=True, help="API key or JWT."),
    tenant: str = typer.Option("", "--tenant", envvar="SOMA_TENANT", help="One of the key's tenants."),
    persona: str = typer.Option("", "--persona", envvar="SOMA_PERSONA", help="Persona of what is written."),
    session: str = typer.Option("", "--session", envvar="SOMA_SESSION", help="Session of what is written."),
    namespace: str = typer.Option("default", "--namespace", envvar="SOMA_NAMESPACE", help="Namespace."),
    tls_ca: Path | None = typer.Option(None, "--tls-ca", envvar="SOMA_TLS_CA", help="PEM roots; with them TLS is on."),
    timeout: float | None = typer.Option(None, "--timeout", min=0.001, help="Seconds for a call."),
    output: str = typer.Option("table", "--output", "-o", envvar="SOMA_OUTPUT", help="table or json."),
) -> None:
    """Memory for AI agents, from the command line."""
    if output not in ("table", "json"):
        raise typer.BadParameter("must be table or json", param_hint="--output")
    context.obj = Place(
        target,
        memory_target,
        api_key,
        tenant,
        persona,
        session,
        namespace,
        tls_ca,
        timeout,
        output == "json",
    )


app.command()(local.up)
app.command()(local.demo)
app.command()(memories.remember)
app.command()(memories.recall)
app.command()(memories.get)
app.command()(memories.forget)
app.command("list")(memories.list_memories)
app.command()(memories.history)
app.command("import")(importing.import_files)
app.command("export")(exporting.export_records)
app.command()(watching.watch)
app.command()(contexts.context)
app.command()(servers.components)
app.command()(servers.info)
app.command()(servers.whoami)
app.add_typer(tenants.tenant, name="tenant")
app.add_typer(tenants.key, name="key")
app.add_typer(working.working, name="wm")
app.add_typer(brain.outbox, name="outbox")
app.add_typer(brain.breaker, name="breaker")
app.add_typer(servers.index, name="index")
indexing.extend(servers.index)
app.add_typer(graph.graph, name="graph")
app.command()(local.bootstrap)
app.command()(local.migrate)
app.command()(mcp.mcp)
app.command()(settings.settings)
app.command()(doctor.doctor)
app.command()(top.top)
app.command()(brain.drain)


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    given = hoisted(arguments)
    try:
        app(given, prog_name="soma")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from soma_client.cli.failing import tell
        from soma_contract.errors import SomaError

        if isinstance(error, SomaError):
            return tell(error, as_json=_wants_json(given))
        if isinstance(error, BrokenPipeError):
            # Whoever read us has had enough: no error, and nothing more to say.
            sys.stderr.close()
            return 0
        raise
    return 0


def _wants_json(arguments: list[str]) -> bool:
    return any(
        word in ("--output=json", "-o=json") or (word in ("--output", "-o") and after == "json")
        for word, after in zip(arguments, [*arguments[1:], ""], strict=True)
    )

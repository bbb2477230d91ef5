"""up, demo, bootstrap and migrate: what runs on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from soma_client.cli.place import data_directory
from soma_client.cli.running import place_of


def up(
    data_dir: Path | None = typer.Option(None, "--data-dir", help="Where everything is kept: $SOMA_HOME or ~/.soma."),
    brain_address: str = typer.Option("127.0.0.1:9696", "--brain-address", metavar="HOST:PORT"),
    memory_address: str = typer.Option("127.0.0.1:9595", "--memory-address", metavar="HOST:PORT"),
) -> None:
    """Start the stores and both servers here; Ctrl-C stops them."""
    from soma_embedded.__main__ import main

    directory = data_dir or data_directory()
    code = main(["--data-dir", str(directory), "--brain-address", brain_address, "--memory-address", memory_address])
    raise typer.Exit(code)


def demo(
    context: typer.Context,
    data_dir: Path | None = typer.Option(
        None, "--data-dir", help="Keep the data here; a temporary place if not given."
    ),
    sample: Path | None = typer.Option(None, "--sample", help="A directory of TENANT.jsonl files."),
    keep: bool = typer.Option(False, "--keep", help="Leave a temporary directory where it is."),
) -> None:
    """Start everything, import a sample, recall, kill a server, show that nothing is lost, stop."""
    from soma_client.cli.demo import run

    raise typer.Exit(run(data_dir, sample, keep=keep, as_json=place_of(context).json))


def bootstrap(
    context: typer.Context,
    directory: Path = typer.Argument(help="The keys go to its folder secrets, where they stay as they are."),
) -> None:
    """Make the keys that servers need to be started by hand: of an administrator, and of the brain."""
    from soma_embedded.directory import DataDirectory
    from soma_embedded.keys import Keys

    place = DataDirectory(directory).place("secrets")
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys = Keys(DataDirectory(directory))
    except OSError as error:
        sys.stderr.write(f"soma: {error.filename} cannot be written: {error.strerror}\n")
        raise typer.Exit(1) from None
    made = {
        "bootstrap_key_file": keys.bootstrap_file,
        "service_credential_file": keys.brain_file,
        "development_key_file": keys.development_file,
    }
    if place_of(context).json:
        from soma_client.cli import output

        output.document({name: str(path) for name, path in made.items()})
        return
    sys.stdout.write(
        f"memory server  SOMA_BOOTSTRAP_KEY_FILE={keys.bootstrap_file}\n"
        f"brain          SOMA_SERVICE_CREDENTIAL_FILE={keys.brain_file}\n"
        f"administrator  {keys.development_file}\n"
    )


def migrate(
    admin_url: str = typer.Option(
        "", "--admin-url", envvar="SOMA_POSTGRES_ADMIN_URL", help="Postgres as the owner of the database."
    ),
    phase: str = typer.Option("all", "--phase", help="pre (before new servers start), post (after), or all."),
) -> None:
    """Bring a Postgres database to this version's schema; safe to repeat."""
    import asyncio

    import asyncpg

    from memory_server.stores.postgres.errors import PostgresRefusedError
    from memory_server.stores.postgres.migrate import Phase, migrate

    chosen: dict[str, tuple[Phase, ...]] = {"pre": ("pre",), "post": ("post",), "all": ("pre", "post")}
    if phase not in chosen:
        raise typer.BadParameter("must be pre, post or all", param_hint="--phase")
    if not admin_url:
        raise typer.BadParameter("give it, or set SOMA_POSTGRES_ADMIN_URL", param_hint="--admin-url")
    password = os.environ.get("SOMA_POSTGRES_PASSWORD")
    try:
        applied = asyncio.run(migrate(admin_url, password=password, phases=chosen[phase]))
    except PostgresRefusedError as error:
        sys.stderr.write(f"soma: {error}\n")
        raise typer.Exit(1) from None
    except (OSError, asyncpg.PostgresError) as error:
        sys.stderr.write(f"soma: Postgres cannot be migrated: {error}\n")
        raise typer.Exit(3) from None
    for name in applied:
        sys.stdout.write(f"applied  {name}\n")
    if not applied:
        sys.stdout.write("nothing to do\n")

"""export: every record of a tenant, or those of a filter, into a file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from soma_client.cli import filtering
from soma_client.cli.filtering import Conditions
from soma_client.cli.progress import drawn
from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma_client.client import SomaClient
    from soma_client.exporter import Exported, ExportSettings


def export_records(
    context: typer.Context,
    file: str = typer.Argument(metavar="FILE", help="Where it goes; - writes JSON lines to standard output."),
    format: str = typer.Option("", "--format", help="jsonl or parquet; else the file's ending says."),
    embeddings: bool = typer.Option(True, "--embeddings/--no-embeddings", help="Vectors too."),
    links: bool = typer.Option(True, "--links/--no-links", help="Links too."),
    kind: str = filtering.KIND,
    tag: list[str] = filtering.TAG,
    type: str = filtering.TYPE,
    key_prefix: str = filtering.KEY_PREFIX,
    actor: str = filtering.ACTOR,
    since: str = filtering.SINCE,
    until: str = filtering.UNTIL,
    resume: bool = typer.Option(False, "--resume", help="Go on with the export into this file that was begun."),
    force: bool = typer.Option(False, "--force", help="Replace the file if it is there."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Draw no progress."),
) -> None:
    """Export memories and links of one moment, with a manifest that says what must be in the file.

    What it writes is what import reads. Without --namespace it is every namespace.
    """
    from soma_client.exporter import ExportSettings

    settings = ExportSettings(Conditions(kind, tag, type, key_prefix, actor, since, until).filter(), embeddings, links)
    if file == "-":
        if format not in ("", "jsonl") or resume:
            raise typer.BadParameter("standard output takes JSON lines from the beginning", param_hint="FILE")
        talk(context, lambda soma: _write_out(soma, settings))
        return
    path = Path(file)
    chosen = format or {".parquet": "parquet", ".pq": "parquet"}.get(path.suffix.lower(), "jsonl")
    if chosen not in ("jsonl", "parquet"):
        raise typer.BadParameter("must be jsonl or parquet", param_hint="--format")
    if path.exists() and not force:
        raise typer.BadParameter(f"{path} is there already; --force replaces it", param_hint="FILE")
    try:
        talk(context, lambda soma: _export(context, soma, path, chosen, settings, resume=resume, quiet=quiet))
    except KeyboardInterrupt:
        sys.stderr.write("stopped: go on with the same command and --resume\n")
        raise


async def _export(
    context: typer.Context,
    soma: SomaClient,
    path: Path,
    format: str,
    settings: ExportSettings,
    *,
    resume: bool,
    quiet: bool,
) -> None:
    from soma_client.cli import output
    from soma_client.exporter import Exporter, manifest_path

    with drawn(f"export {path.name}", quiet=quiet or place_of(context).json) as draw:

        def tell(at: Exported) -> None:
            draw(at.memories + at.links, 0, 0, f"{at.bytes / 1e6:,.1f} MB")

        manifest = await Exporter(soma, path, settings=settings, resume=resume, on_progress=tell).run(format)
    if place_of(context).json:
        output.document({**asdict(manifest), "manifest": str(manifest_path(path))})
        return
    sys.stdout.write(
        f"{manifest.memories:,} memories, {manifest.links:,} links of revision {manifest.revision:,}"
        f"  {path} ({manifest.bytes:,} bytes)\n"
    )


async def _write_out(soma: SomaClient, settings: ExportSettings) -> None:
    from soma_client.record_json import line_of

    async for frame in soma.export_records(
        settings.filter, include_embeddings=settings.embeddings, include_links=settings.links
    ):
        sys.stdout.buffer.writelines(map(line_of, frame.records))
        sys.stdout.buffer.flush()

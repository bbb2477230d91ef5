"""import: records of files, standard input and other memories' exports."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from soma_client.cli.progress import drawn
from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma.batch.v1 import batch_service_pb2 as pb
    from soma_client.client import SomaClient
    from soma_client.importer import Importer, ImportProgress, ImportSettings


def import_files(
    context: typer.Context,
    files: list[str] = typer.Argument(metavar="FILE...", help="Files, or - for standard input."),
    origin: str = typer.Option("soma", "--from", help="Whose they are: soma, mem0, letta, langgraph or chatgpt."),
    format: str = typer.Option("", "--format", help="jsonl, csv, tsv or parquet; else the first file's ending says."),
    columns: list[str] = typer.Option([], "--map", metavar="FIELD=COLUMN", help="Take a field from this column."),
    constants: list[str] = typer.Option([], "--set", metavar="FIELD=VALUE", help="Give every memory this value."),
    rest: str = typer.Option("payload", "--rest", help="Where columns go that are no field: payload or ignore."),
    on_conflict: str = typer.Option("skip", "--on-conflict", help="What exists: skip, overwrite or fail."),
    max_refused: int | None = typer.Option(None, "--max-refused", min=0, help="Give up beyond so many refusals."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Let the server check every record, and store nothing."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the import of these files that was begun."),
    restart: bool = typer.Option(False, "--restart", help="Forget the import that was begun, and begin anew."),
    state: Path | None = typer.Option(None, "--state", help="Where it is kept how far this is; beside the first file."),
    refused: Path | None = typer.Option(None, "--refused", help="Where refused records go; beside the first file."),
    wait: bool = typer.Option(False, "--wait", help="Return only when all stored memories are indexed."),
    patience: float = typer.Option(120.0, "--patience", min=0.0, help="Seconds without progress until it gives up."),
    label: str = typer.Option("", "--label", help="A remark for operators."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Draw no progress."),
) -> None:
    """Import memories and links: JSON lines, CSV, Parquet, or another memory's export.

    Exits with 1 if records were refused; they are in FILE.refused.jsonl, with reasons.
    """
    from soma_client.cli.opening import Chosen, opened, piped
    from soma_client.importer import Importer, ImportSettings

    if on_conflict not in ("skip", "overwrite", "fail"):
        raise typer.BadParameter("must be skip, overwrite or fail", param_hint="--on-conflict")
    settings = ImportSettings(on_conflict, max_refused, dry_run, label)
    chosen = Chosen(origin, format, tuple(columns), tuple(constants), rest)
    with piped(files, chosen) as paths:
        source = opened(paths, chosen)
        named = Path("stdin") if "-" in files else paths[0]
        kept = _state_file(state, named, piped="-" in files, dry_run=dry_run, resume=resume, restart=restart)
        refusals = refused or named.with_name(f"{named.name}.refused.jsonl")
        stopped = "nothing is lost" + ("; go on with the same command and --resume" if kept else "")

        async def work(soma: SomaClient) -> None:
            with drawn(f"import {source.name}", quiet=quiet or place_of(context).json) as draw:

                def tell(at: ImportProgress) -> None:
                    more = [f"{at.refused:,} refused"] if at.refused else []
                    more += [f"{at.index_lag:,} to index"] if at.index_lag else []
                    draw(at.committed, at.reached, at.size, ", ".join(more))

                importer = Importer(soma, source, settings=settings, state=kept, on_progress=tell, patience_s=patience)
                await _run(context, soma, importer, settings, refusals, wait=wait)

        try:
            talk(context, work)
        except KeyboardInterrupt:
            sys.stderr.write(f"stopped: {stopped}\n")
            raise
        finally:
            if kept is not None and kept.exists() and sys.exc_info()[0] is not KeyboardInterrupt:
                sys.stderr.write(f"not finished: {stopped}\n")


def _state_file(
    given: Path | None, named: Path, *, piped: bool, dry_run: bool, resume: bool, restart: bool
) -> Path | None:
    """Where the state is kept, None for nowhere; refuses to mistake an import that was begun for a new one."""
    if dry_run or (piped and given is None):
        if resume:
            raise typer.BadParameter(
                "needs --state for standard input, and there is no dry run of it", param_hint="--resume"
            )
        return None
    kept = given or named.with_name(f"{named.name}.import.json")
    if restart:
        kept.unlink(missing_ok=True)
    elif kept.exists() and not resume:
        told = (
            f"an import of this was begun and not finished, see {kept}: give --resume to go on, --restart to begin anew"
        )
        raise typer.BadParameter(told, param_hint="FILE")
    return kept


async def _run(
    context: typer.Context,
    soma: SomaClient,
    importer: Importer,
    settings: ImportSettings,
    refusals: Path,
    *,
    wait: bool,
) -> None:
    from soma_client.cli import output
    from soma_contract.errors import TooManyRefusedError

    began = time.monotonic()
    failed: TooManyRefusedError | None = None
    try:
        job = await importer.run()
    except TooManyRefusedError as error:
        failed = error
        job = await soma.get_import(importer.import_id)
    seconds = time.monotonic() - began
    if wait and failed is None and not settings.dry_run:
        job = await _indexed(soma, job)
    written = await _write_refused(importer, refusals) if job.refused else 0
    told = _report(importer, job, seconds, refusals if written else None)
    if place_of(context).json:
        output.document(told)
    else:
        verb = "would be stored" if settings.dry_run else "stored"
        sys.stdout.write(
            f"{job.stored:,} {verb}, {job.skipped:,} skipped, {job.refused:,} refused"
            f"  in {seconds:.1f} s ({told['records_per_s']:,.0f}/s)\n"
        )
        if written:
            sys.stderr.write(f"refused  {refusals}\n")
    if failed is not None:
        raise failed
    if job.refused:
        raise typer.Exit(1)


def _report(importer: Importer, job: pb.ImportJob, seconds: float, refusals: Path | None) -> dict[str, object]:
    from soma.batch.v1 import batch_service_pb2 as pb

    progress = importer.progress
    return {
        "import_id": job.import_id,
        "state": pb.ImportState.Name(job.state).removeprefix("IMPORT_STATE_").lower(),
        "records": job.committed_offset,
        "stored": job.stored,
        "skipped": job.skipped,
        "refused": job.refused,
        "indexed": job.indexed,
        "dry_run": job.dry_run,
        "seconds": round(seconds, 3),
        "records_per_s": round((job.committed_offset - progress.resumed_at) / max(seconds, 1e-3), 1),
        "resumed_at": progress.resumed_at,
        "reconnects": progress.reconnects,
        "refused_file": None if refusals is None else str(refusals),
    }


async def _write_refused(importer: Importer, path: Path) -> int:
    """Write refused records with their reasons, a JSON object a line; returns how many."""
    from soma_client.importer import refused_line

    count = 0
    with path.open("wb") as file:
        async for refused in importer.refused():
            file.write(refused_line(refused))
            count += 1
    return count


async def _indexed(soma: SomaClient, job: pb.ImportJob) -> pb.ImportJob:
    import asyncio

    stored = -1
    while job.indexed < job.stored and job.indexed != stored:
        await asyncio.sleep(0.2)
        job = await soma.get_import(job.import_id)
    return job

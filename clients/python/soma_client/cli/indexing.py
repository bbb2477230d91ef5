"""index reconcile, rebuild, reembed, jobs and poisoned: work on the whole index."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma.admin.v1 import operator_service_pb2 as pb
    from soma_client.client import SomaClient

WAIT = typer.Option(True, "--wait/--no-wait", help="Wait until it is done; exits 1 if it failed.")
_LOOK_S = 0.2


def extend(index: typer.Typer) -> None:
    """Add the commands to those that `soma index` has."""
    for name, command in (
        ("reconcile", reconcile),
        ("rebuild", rebuild),
        ("reembed", reembed),
        ("jobs", jobs),
        ("poisoned", poisoned),
    ):
        index.command(name)(command)


def reconcile(
    context: typer.Context,
    repair: bool = typer.Option(True, "--repair/--no-repair", help="Repair what differs, or only count it."),
    wait: bool = WAIT,
) -> None:
    """Compare the index of --tenant, or of all, with the truth."""
    tenant = place_of(context).tenant
    _job(context, lambda soma: soma.operator.reconcile(tenant, repair=repair), wait)


def rebuild(
    context: typer.Context,
    collection: str = typer.Option("", "--collection", help="Only this one, see 'soma index status'."),
    poisoned: bool = typer.Option(False, "--poisoned", help="Only try again what the index refuses."),
    wait: bool = WAIT,
) -> None:
    """Make the index of --tenant, or of all, anew; recall goes on meanwhile."""
    tenant = place_of(context).tenant
    _job(context, lambda soma: soma.operator.rebuild_index(tenant, collection, poisoned_only=poisoned), wait)


def reembed(
    context: typer.Context,
    profile: str = typer.Option("", "--profile", help="Where to; the server's default if not given."),
    wait: bool = WAIT,
) -> None:
    """Embed the memories of --tenant, or of all, with another model; the old one answers until that is done."""
    tenant = place_of(context).tenant
    _job(context, lambda soma: soma.operator.re_embed(tenant, profile), wait)


def jobs(context: typer.Context) -> None:
    """List jobs on the index, newest first; JSON output is one a line."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        found = [job async for job in soma.operator.index_jobs(place_of(context).tenant)]
        if place_of(context).json:
            for job in found:
                output.line(output.wire(job))
            return
        rows = [
            (job.job_id, _kind(job), _state(job), job.tenant, job.done, job.total, job.create_time.ToDatetime())
            for job in found
        ]
        output.table(("id", "job", "state", "tenant", ">done", ">of", "asked for"), rows)

    talk(context, work, memory_server=True)


def poisoned(context: typer.Context) -> None:
    """List memories that the index keeps refusing; JSON output is one a line."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        found = [row async for row in soma.operator.poisoned_rows(place_of(context).tenant)]
        if place_of(context).json:
            for row in found:
                output.line(output.wire(row))
            return
        rows = [(row.memory_id, row.tenant, row.version, row.attempts, row.last_error) for row in found]
        output.table(("id", "tenant", ">version", ">tries", "error"), rows)

    talk(context, work, memory_server=True)


def _job(context: typer.Context, ask: Callable[[SomaClient], Awaitable[pb.IndexJob]], wait: bool) -> None:
    async def work(soma: SomaClient) -> None:
        import asyncio

        from soma.admin.v1 import operator_service_pb2 as pb
        from soma_client.cli import output

        job = await ask(soma)
        ended = (pb.INDEX_JOB_STATE_DONE, pb.INDEX_JOB_STATE_FAILED)
        while wait and job.state not in ended:
            await asyncio.sleep(_LOOK_S)
            job = await soma.operator.index_job(job.job_id)
        if place_of(context).json:
            output.document(output.wire(job))
        else:
            sys.stdout.write(f"{_kind(job)} {_state(job)}  {job.job_id}  {job.done} of {job.total}\n")
            if job.HasField("report"):
                report = job.report
                sys.stdout.write(
                    f"compared {report.compared}, missing {report.missing}, outdated {report.outdated}, "
                    f"orphaned {report.orphaned}, repaired {report.repaired}\n"
                )
            if job.HasField("error"):
                sys.stderr.write(f"soma: {job.error.message}\n")
        if job.state == pb.INDEX_JOB_STATE_FAILED:
            raise typer.Exit(1)

    talk(context, work, memory_server=True)


def _kind(job: pb.IndexJob) -> str:
    from soma.admin.v1 import operator_service_pb2 as pb

    return pb.IndexJobKind.Name(job.kind).removeprefix("INDEX_JOB_KIND_").lower().replace("_", "")


def _state(job: pb.IndexJob) -> str:
    from soma.admin.v1 import operator_service_pb2 as pb

    return pb.IndexJobState.Name(job.state).removeprefix("INDEX_JOB_STATE_").lower()

"""outbox, breaker and drain: looking after a brain."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import parse_duration_s, place_of, talk

if TYPE_CHECKING:
    from soma_client.client import SomaClient

outbox = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Writes that the memory server does not have yet; of the brain."
)
breaker = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Circuit breakers of the brain.")

ENTRIES = typer.Argument(None, help="Ids of dead letters, see 'soma outbox dead'.")
EVERY = typer.Option(False, "--all", help="All of --tenant.")


@outbox.command("status")
def outbox_status(context: typer.Context) -> None:
    """Show how much waits, of --tenant or of all; exits 1 if there are dead letters."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        place = place_of(context)
        answer = await soma.operator.outbox(place.tenant)
        if place.json:
            output.document(output.whole(answer))
        else:
            oldest = answer.oldest_time.ToDatetime() if answer.HasField("oldest_time") else None
            output.fields(
                [
                    ("pending", str(answer.pending)),
                    ("bytes", str(answer.pending_bytes)),
                    ("oldest", oldest),
                    ("in flight", str(answer.in_flight)),
                    ("dead letters", str(answer.dead_letters)),
                    ("delivered", str(answer.delivered)),
                    ("limit a tenant", f"{answer.pending_limit} writes, {answer.pending_bytes_limit} bytes"),
                    ("disk free", f"{answer.disk_free_bytes} bytes"),
                    ("delivery", "waits for the breaker" if answer.delivery_blocked else "runs"),
                ]
            )
            if answer.tenants:
                rows = [(each.tenant, each.pending, each.pending_bytes, each.dead_letters) for each in answer.tenants]
                output.table(("tenant", ">pending", ">bytes", ">dead letters"), rows)
        if answer.dead_letters:
            raise typer.Exit(1)

    talk(context, work)


@outbox.command("dead")
def outbox_dead(context: typer.Context) -> None:
    """List writes refused for good, with the reason; JSON output is one a line."""

    async def work(soma: SomaClient) -> None:
        from soma.admin.v1 import operator_service_pb2 as pb
        from soma_client.cli import output

        place = place_of(context)
        letters = [letter async for letter in soma.operator.dead_letters(place.tenant)]
        if place.json:
            for letter in letters:
                output.line(output.wire(letter))
            return
        rows = [
            (
                letter.entry_id,
                letter.tenant,
                pb.OutboxOperation.Name(letter.operation).removeprefix("OUTBOX_OPERATION_").lower(),
                letter.origin_time.ToDatetime(),
                letter.attempts,
                letter.error.message,
            )
            for letter in letters
        ]
        output.table(("id", "tenant", "operation", "since", ">tries", "error"), rows)

    talk(context, work)


@outbox.command("replay")
def outbox_replay(context: typer.Context, entry_id: list[str] = ENTRIES, every: bool = EVERY) -> None:
    """Send dead letters again; exits 1 if one of the ids is none."""
    entries, tenant = _meant(context, entry_id, every)

    async def work(soma: SomaClient) -> None:
        answer = await soma.operator.replay_dead_letters(entries, tenant)
        _ended(context, "replayed", answer.replayed, answer.missing_entry_ids)

    talk(context, work)


@outbox.command("discard")
def outbox_discard(
    context: typer.Context,
    entry_id: list[str] = ENTRIES,
    every: bool = EVERY,
    cause: str = typer.Option(..., "--cause", help="Why, for the audit log."),
) -> None:
    """Delete dead letters for good: acknowledged writes that will never be stored."""
    entries, tenant = _meant(context, entry_id, every)

    async def work(soma: SomaClient) -> None:
        answer = await soma.operator.discard_dead_letters(cause, entries, tenant)
        _ended(context, "discarded", answer.discarded, answer.missing_entry_ids)

    talk(context, work)


@breaker.command("list")
def breaker_list(
    context: typer.Context,
    not_closed: bool = typer.Option(False, "--not-closed", help="Only those that are open or half-open."),
) -> None:
    """List the breakers; JSON output is one a line."""

    async def work(soma: SomaClient) -> None:
        from soma.admin.v1 import operator_service_pb2 as pb
        from soma_client.cli import output

        found = [one async for one in soma.operator.breakers(not_closed=not_closed)]
        if place_of(context).json:
            for one in found:
                output.line(output.whole(one))
            return
        rows = [
            (
                one.dependency,
                one.tenant,
                pb.BreakerState.Name(one.state).removeprefix("BREAKER_STATE_").lower().replace("_", "-"),
                one.since_time.ToDatetime(),
                one.calls,
                one.failures,
                one.slow,
            )
            for one in found
        ]
        output.table(("dependency", "tenant", "state", "since", ">calls", ">failures", ">slow"), rows)

    talk(context, work)


@breaker.command("reset")
def breaker_reset(
    context: typer.Context,
    dependency: str = typer.Argument("memory", help="What it protects, see 'soma breaker list'."),
    all_tenants: bool = typer.Option(False, "--all-tenants", help="Those of every tenant too."),
) -> None:
    """Close a breaker now: the dependency's own, or with --tenant that tenant's."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        place = place_of(context)
        tenant = "" if all_tenants else place.tenant
        closed = await soma.operator.reset_breaker(dependency, tenant, all_tenants=all_tenants)
        if place.json:
            output.document({"closed": closed})
        else:
            sys.stdout.write(f"closed {closed}\n" if closed else "was closed already\n")

    talk(context, work)


def drain(
    context: typer.Context,
    grace: str = typer.Option("", "--grace", metavar="DURATION", help="For running calls; the server's if not given."),
    memory_server: bool = typer.Option(False, "--memory-server", help="The memory server instead of the brain."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask; there is no way back."),
) -> None:
    """Shut a server down in good order: refuse new calls, let running ones end, write everything out."""
    grace_s = parse_duration_s(grace, "--grace")
    if not yes:
        typer.confirm("The server will go down. Drain it?", abort=True, err=True)

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        answer = await soma.operator.drain(grace_s)
        if place_of(context).json:
            output.document(output.whole(answer))
        else:
            until = answer.deadline_time.ToDatetime()
            sys.stdout.write(f"draining {answer.calls_in_flight} calls, until {until:%H:%M:%S} UTC at the latest\n")

    talk(context, work, memory_server=memory_server)


def _meant(context: typer.Context, entry_ids: list[str] | None, every: bool) -> tuple[list[str], str]:
    tenant = place_of(context).tenant
    if every and entry_ids:
        raise typer.BadParameter("give ids or --all, not both", param_hint="--all")
    if every and not tenant:
        raise typer.BadParameter("needs --tenant", param_hint="--all")
    if not every and not entry_ids:
        raise typer.BadParameter("give ids, or --all with --tenant", param_hint="ENTRY_ID")
    return (entry_ids or [], tenant if every else "")


def _ended(context: typer.Context, word: str, count: int, missing: Iterable[str]) -> None:
    from soma_client.cli import output

    absent = list(missing)
    if place_of(context).json:
        output.document({word: count, "missing_entry_ids": absent})
    else:
        sys.stdout.write(f"{word} {count}\n")
        for entry_id in absent:
            sys.stderr.write(f"no dead letter  {entry_id}\n")
    if absent:
        raise typer.Exit(1)

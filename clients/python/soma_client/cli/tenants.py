"""tenant create|list and key create|list|revoke; answered by the memory server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import parse_duration_s, place_of, talk

if TYPE_CHECKING:
    from soma.admin.v1 import tenant_service_pb2 as pb
    from soma_client.client import SomaClient

tenant = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Tenants.")
key = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys.")


@tenant.command("create")
def create_tenant(
    context: typer.Context,
    name: str = typer.Argument(help="1-63 of a-z, 0-9, '.', '_', '-', the first a letter or digit."),
    display_name: str = typer.Option("", "--display-name"),
    dedicated: bool = typer.Option(False, "--dedicated", help="Give it collections of its own in the index."),
) -> None:
    """Create a tenant."""

    async def work(soma: SomaClient) -> None:
        created = await soma.tenants.create(name, display_name=display_name, dedicated=dedicated)
        _show_tenants([created], as_json=place_of(context).json)

    talk(context, work, memory_server=True)


@tenant.command("list")
def list_tenants(context: typer.Context) -> None:
    """List the tenants."""

    async def work(soma: SomaClient) -> None:
        _show_tenants([each async for each in soma.tenants.list()], as_json=place_of(context).json)

    talk(context, work, memory_server=True)


@tenant.command("update")
def update_tenant(
    context: typer.Context,
    name: str = typer.Argument(help="The tenant."),
    display_name: str | None = typer.Option(None, "--display-name"),
    weight: list[str] = typer.Option(
        [], "--weight", metavar="NAME=NUMBER", help="A weight of recall, 0 to 1; all others are the preset's again."
    ),
    default_weights: bool = typer.Option(False, "--default-weights", help="Take back every weight."),
    scorer: str | None = typer.Option(None, "--scorer", help="Strategy that ranks recalls; '' for the built-in one."),
) -> None:
    """Change a tenant."""
    weights = {part.partition("=")[0]: _number(part) for part in weight}

    async def work(soma: SomaClient) -> None:
        changed = await soma.tenants.update(
            name,
            display_name=display_name,
            scorer=scorer,
            recall_weights=weights if weights or default_weights else None,
        )
        _show_tenants([changed], as_json=place_of(context).json)

    talk(context, work, memory_server=True)


@tenant.command("suspend")
def suspend_tenant(
    context: typer.Context,
    name: str = typer.Argument(help="The tenant."),
    cause: str = typer.Option("", "--cause", help="Why; administrators see it."),
) -> None:
    """Refuse all calls of a tenant until it is resumed; nothing is deleted."""

    async def work(soma: SomaClient) -> None:
        _show_tenants([await soma.tenants.suspend(name, cause)], as_json=place_of(context).json)

    talk(context, work, memory_server=True)


@tenant.command("resume")
def resume_tenant(context: typer.Context, name: str = typer.Argument(help="The tenant.")) -> None:
    """End a suspension."""

    async def work(soma: SomaClient) -> None:
        _show_tenants([await soma.tenants.resume(name)], as_json=place_of(context).json)

    talk(context, work, memory_server=True)


@key.command("create")
def create_key(
    context: typer.Context,
    tenants: list[str] = typer.Argument(help="The tenants it reaches."),
    scope: list[str] = typer.Option([], "--scope", help="Such as memory:read; none means an agent's scopes."),
    label: str = typer.Option("", "--label", help="What it is for."),
    ttl: str = typer.Option("", "--ttl", metavar="DURATION", help="Ends after so long: 12h, 30d."),
) -> None:
    """Make a key; it is shown this once and kept nowhere."""
    ttl_s = parse_duration_s(ttl, "--ttl")

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        made = await soma.tenants.create_key(*tenants, scopes=scope, label=label, ttl_s=ttl_s)
        if place_of(context).json:
            output.document(output.wire(made))
            return
        sys.stdout.write(made.bearer + "\n")
        sys.stderr.write(f"key {made.key.key_id} for {', '.join(made.key.tenants)}: keep it, it is not shown again\n")

    talk(context, work, memory_server=True)


@key.command("list")
def list_keys(
    context: typer.Context,
    tenant: str = typer.Argument(help="Whose keys."),
    ended: bool = typer.Option(False, "--ended", help="Also revoked and expired ones."),
) -> None:
    """List a tenant's keys, without their secrets."""

    async def work(soma: SomaClient) -> None:
        _show_keys(
            [each async for each in soma.tenants.list_keys(tenant, include_ended=ended)],
            as_json=place_of(context).json,
        )

    talk(context, work, memory_server=True)


@key.command("revoke")
def revoke_key(context: typer.Context, key_id: str = typer.Argument(help="Id of the key, not its secret.")) -> None:
    """Revoke a key."""

    async def work(soma: SomaClient) -> None:
        _show_keys([await soma.tenants.revoke_key(key_id)], as_json=place_of(context).json)

    talk(context, work, memory_server=True)


def _number(part: str) -> float:
    try:
        return float(part.partition("=")[2])
    except ValueError:
        raise typer.BadParameter(f"{part!r} is not NAME=NUMBER", param_hint="--weight") from None


def _show_tenants(tenants: list[pb.TenantRecord], *, as_json: bool) -> None:
    from soma.admin.v1 import tenant_service_pb2 as pb
    from soma_client.cli import output

    if as_json:
        for each in tenants:
            output.line(output.wire(each))
        return
    rows = [
        (
            each.tenant,
            each.display_name,
            pb.TenantState.Name(each.state).removeprefix("TENANT_STATE_").lower(),
            each.create_time.ToDatetime(),
        )
        for each in tenants
    ]
    output.table(("tenant", "name", "state", "created"), rows)


def _show_keys(keys: list[pb.ApiKey], *, as_json: bool) -> None:
    from soma_client.cli import output

    if as_json:
        for each in keys:
            output.line(output.wire(each))
        return
    rows = [
        (
            each.key_id,
            each.label,
            list(each.tenants),
            list(each.scopes),
            each.create_time.ToDatetime(),
            each.expire_time.ToDatetime() if each.HasField("expire_time") else None,
            each.revoke_time.ToDatetime() if each.HasField("revoke_time") else None,
        )
        for each in keys
    ]
    output.table(("id", "label", "tenants", "scopes", "created", "expires", "revoked"), rows)

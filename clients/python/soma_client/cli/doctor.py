"""doctor: goes through everything a call needs, and says what to do about what is missing."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from soma_client.cli.place import Place, development_key_file
from soma_client.cli.running import CONNECT_S, place_of

if TYPE_CHECKING:
    from soma_client.client import SomaClient


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    subject: str
    well: bool
    told: str
    advice: str = ""


def doctor(context: typer.Context) -> None:
    """Look at key, servers, stores and index; exits 1 if anything is wrong."""
    import asyncio

    place = place_of(context)
    findings = asyncio.run(_look(place))
    if place.json:
        from soma_client.cli import output

        output.document([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            sys.stdout.write(f"{'ok  ' if finding.well else 'FAIL'}  {finding.subject:<14} {finding.told}\n")
            if finding.advice and not finding.well:
                sys.stdout.write(f"      {'':<14} try: {finding.advice}\n")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


async def _look(place: Place) -> list[Finding]:
    findings = [_key(place)]
    if not findings[0].well:
        return findings
    for name, memory_server in (("brain", False), ("memory server", True)):
        async with place.connect(memory_server=memory_server) as soma:
            reached = await _found(name, lambda soma=soma: _server(soma))  # type: ignore[misc]
            findings.append(reached)
            if not reached.well:
                continue
            if not memory_server:
                findings.append(await _found("identity", lambda soma=soma: _identity(soma)))  # type: ignore[misc]
            findings.append(await _found("stores", lambda soma=soma: _stores(soma)))  # type: ignore[misc]
            if memory_server:
                findings.append(await _found("index", lambda soma=soma: _index(soma)))  # type: ignore[misc]
    return findings


def _key(place: Place) -> Finding:
    if place.api_key:
        return Finding("key", True, "given by --api-key or SOMA_KEY")
    if place.key():
        return Finding("key", True, f"from {development_key_file()}")
    return Finding(
        "key", False, "there is none", f"start 'soma up', which leaves one in {development_key_file()}, or set SOMA_KEY"
    )


async def _found(subject: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    """What a look found; what it failed with is a finding too."""
    from soma_client.cli.failing import advice
    from soma_contract.errors import SomaError

    try:
        return await look()
    except SomaError as error:
        return Finding(subject, False, f"{error.message} {f'({error.reason})' if error.reason else ''}", advice(error))


async def _server(soma: SomaClient) -> Finding:
    from soma.admin.v1 import operator_service_pb2 as pb

    await soma.ready(CONNECT_S)
    info = await soma.operator.server_info()
    role = pb.ServerRole.Name(info.role).removeprefix("SERVER_ROLE_").lower()
    return Finding(
        "brain" if role == "brain" else "memory server",
        not info.draining,
        f"version {info.version} at {soma.target}{', draining' if info.draining else ''}",
        "wait for its successor, or start it again",
    )


async def _identity(soma: SomaClient) -> Finding:
    who = await soma.operator.who_am_i()
    tenants = ", ".join(who.tenants) or "every tenant"
    named = f"as {who.tenant}" if who.tenant else "for no tenant: name one with --tenant"
    return Finding("identity", bool(who.tenant), f"{who.credential_id} {named} (reaches {tenants})", "give --tenant")


async def _stores(soma: SomaClient) -> Finding:
    from soma.admin.v1 import operator_service_pb2 as pb

    answer = await soma.operator.components()
    unwell = [each for each in answer.components if each.state != pb.COMPONENT_STATE_HEALTHY]
    told = ", ".join(
        f"{each.name} {pb.ComponentState.Name(each.state).removeprefix('COMPONENT_STATE_').lower()}"
        for each in answer.components
    )
    errors = "; ".join(f"{each.name}: {each.last_error}" for each in unwell if each.last_error)
    return Finding("stores", not unwell, told or "none", errors or "look into the logs of the store")


async def _index(soma: SomaClient) -> Finding:
    status = await soma.operator.index_status()
    told = f"{status.pending_rows} rows behind, {status.poisoned_rows} refused"
    if status.paused:
        return Finding("index", False, f"{told}, paused", "soma index resume")
    return Finding("index", not status.poisoned_rows, told, "what the index refuses is found by keyword meanwhile")

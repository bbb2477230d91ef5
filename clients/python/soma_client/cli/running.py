"""From a command's arguments to a client and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from soma_client.cli.place import Place

if TYPE_CHECKING:
    from soma_client.client import SomaClient

CONNECT_S = 3.0


def place_of(context: typer.Context) -> Place:
    """What the global options said."""
    place = context.obj
    assert isinstance(place, Place)
    return place


def talk(context: typer.Context, work: Callable[[SomaClient], Awaitable[None]], *, memory_server: bool = False) -> None:
    """Connect to the brain, or to the memory server, and do the work; SomaError passes."""
    import asyncio

    asyncio.run(_talk(place_of(context), work, memory_server))


async def _talk(place: Place, work: Callable[[SomaClient], Awaitable[None]], memory_server: bool) -> None:
    from soma_contract.errors import CredentialsMissingError

    if not place.key():
        raise CredentialsMissingError
    async with place.connect(memory_server=memory_server) as soma:
        await soma.ready(min(CONNECT_S, place.timeout_s or CONNECT_S))
        await work(soma)


def parse_time(text: str, option: str) -> datetime | None:
    """An ISO 8601 time, taken as UTC where it names no zone; None for an empty text."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("is not a time such as 2026-10-15 or 2026-10-15T08:00Z", param_hint=option) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_duration_s(text: str, option: str) -> float | None:
    """Seconds, or a number with s, m, h or d; None for an empty text."""
    if not text:
        return None
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(text[-1])
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise typer.BadParameter("is not a duration such as 90, 15m, 12h or 30d", param_hint=option)
    return seconds

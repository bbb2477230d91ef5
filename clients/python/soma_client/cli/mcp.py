"""`soma mcp`: the memory as tools for a model."""

from __future__ import annotations

import typer

from soma_client.cli.place import Place
from soma_client.cli.running import place_of


def mcp(
    context: typer.Context,
    http: str = typer.Option(
        "", "--http", metavar="HOST:PORT", help="Serve over streamable HTTP at /mcp; without it over stdin and stdout."
    ),
) -> None:
    """Serve the memory as tools for a model (Model Context Protocol).

    A program that speaks MCP starts this itself and talks to it over stdin and stdout. Over HTTP every request may
    bring a key of its own as 'Authorization: Bearer KEY'; without one it is served only on a loopback address.
    """
    host, _, port = http.rpartition(":")
    if http and not (host and port.isdigit() and int(port) < 65_536):
        raise typer.BadParameter("is not of the form 127.0.0.1:8765", param_hint="--http")
    import asyncio  # heavy: only where it is needed

    asyncio.run(_serve(place_of(context), host.strip("[]"), int(port or 0)))


async def _serve(place: Place, host: str, port: int) -> None:
    from soma_contract.errors import CredentialsMissingError, UnimplementedError

    if not host and not place.key():
        raise CredentialsMissingError
    try:
        from soma_client.tool_server.serving import serve_http, serve_stdio
    except ImportError as missing:
        raise UnimplementedError(
            f"the tools need one more package ({missing.name}): pip install 'soma-memory[mcp]'"
        ) from None
    async with place.connect() as soma:
        if host:
            await serve_http(soma, host, port)
        else:
            await serve_stdio(soma)

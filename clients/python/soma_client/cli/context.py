"""context: what an agent would paste into its prompt."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma_client.client import SomaClient


def context(
    context: typer.Context,
    text: str = typer.Argument(help="The conversation so far, or the question; - reads stdin."),
    budget: int = typer.Option(0, "--budget", min=0, help="Tokens it may have; 2,000 if not given."),
    use: bool = typer.Option(False, "--use", help="Count the memories that are cited as used together."),
) -> None:
    """Assemble what --persona should know of a conversation, with working memory of --session if one is named."""
    asked = sys.stdin.read() if text == "-" else text

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        place = place_of(context)
        frames = [
            frame
            async for frame in soma.contexts.assemble(
                asked, token_budget=budget, reinforce=use, timeout_s=place.timeout_s
            )
        ]
        if place.json:
            output.document(
                {
                    "sections": [output.wire(frame.section) for frame in frames if frame.HasField("section")],
                    "summary": output.whole(frames[-1].summary),
                }
            )
            return
        for frame in frames:
            if frame.HasField("section") and frame.section.text:
                sys.stdout.write(f"## {frame.section.name}\n\n{output.shown(frame.section.text)}\n\n")
        summary = frames[-1].summary
        left = f", {summary.omitted} left out" if summary.omitted else ""
        degraded = ", degraded" if summary.degraded else ""
        sys.stdout.write(f"{summary.tokens} tokens{left}{degraded}\n")

    talk(context, work)

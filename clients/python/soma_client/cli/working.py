"""wm: working memory of a session, answered by the brain."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma.memory.v1 import working_memory_service_pb2 as pb
    from soma_client.client import SomaClient

working = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Working memory of --session; answered by the brain."
)


@working.command("list")
def list_items(
    context: typer.Context,
    min_salience: float | None = typer.Option(None, "--min-salience", help="Only what is at least so salient."),
) -> None:
    """List what the session holds, most salient first; JSON output is one item a line."""
    _session(context)

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        items = [item async for item in soma.working.items(min_salience=min_salience)]
        if place_of(context).json:
            for item in items:
                output.line(output.wire(item))
            return
        rows = [(item.item_id, item.salience, item.uses, _kind(item), item.memory_id, item.text) for item in items]
        output.table(("id", ">salience", ">uses", "kind", "long-term id", "text"), rows)

    talk(context, work)


@working.command("observe")
def observe(
    context: typer.Context,
    text: list[str] = typer.Argument(help="What was observed; several are observed in this order."),
    kind: str = typer.Option("observation", "--kind", help="observation, thought, action or result."),
    reward: float | None = typer.Option(None, "--reward", help="How good it was, from -1 to 1."),
) -> None:
    """Observe something; exits 1 if it was refused, which is not the same as not being admitted."""
    _session(context)
    known = _known(kind)

    async def work(soma: SomaClient) -> None:
        from soma.memory.v1 import working_memory_service_pb2 as pb
        from soma_client.cli import output

        number = pb.ItemKind.Value(f"ITEM_KIND_{known.upper()}")
        answers = await soma.working.observe(*(pb.Observation(kind=number, text=one, reward=reward) for one in text))
        refused = [answer for answer in answers if answer.HasField("refused")]
        if place_of(context).json:
            for answer in answers:
                output.line(output.wire(answer))
        else:
            for answer in answers:
                sys.stdout.write(_told(answer))
        if refused:
            raise typer.Exit(1)

    talk(context, work)


@working.command("tick")
def tick(context: typer.Context) -> None:
    """Let salience decay and promotion be decided now."""
    _session(context)

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        answer = await soma.working.tick()
        if place_of(context).json:
            output.document(output.whole(answer))
            return
        sys.stdout.write(f"{answer.item_count} items, {answer.candidates} about to be promoted\n")
        _promotions(answer.promoted)

    talk(context, work)


@working.command("promote")
def promote(
    context: typer.Context, item_id: list[str] = typer.Argument(help="Ids of items, see 'soma wm list'.")
) -> None:
    """Make long-term memories of items; exits 1 if one could not be."""
    _session(context)

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        answer = await soma.working.promote(*item_id)
        if place_of(context).json:
            output.document(output.wire(answer))
        else:
            _promotions(answer.promotions)
        if any(promotion.HasField("error") for promotion in answer.promotions):
            raise typer.Exit(1)

    talk(context, work)


@working.command("close")
def close(
    context: typer.Context,
    promote_min_salience: float | None = typer.Option(
        None, "--promote-min-salience", help="Promote what is at least so salient first."
    ),
) -> None:
    """End the session; what was not promoted is gone."""
    _session(context)

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        answer = await soma.working.close(promote_min_salience=promote_min_salience)
        if place_of(context).json:
            output.document(output.whole(answer))
            return
        told = f"closed  {answer.item_count} items" if answer.existed else "there was no such session"
        sys.stdout.write(f"{told}\n")
        _promotions(answer.promoted)

    talk(context, work)


def _session(context: typer.Context) -> None:
    if not place_of(context).session:
        raise typer.BadParameter("name one, or set SOMA_SESSION", param_hint="--session")


def _known(kind: str) -> str:
    if kind not in ("observation", "thought", "action", "result"):
        raise typer.BadParameter("must be observation, thought, action or result", param_hint="--kind")
    return kind


def _kind(item: pb.WorkingItem) -> str:
    from soma.memory.v1 import working_memory_service_pb2 as pb

    return pb.ItemKind.Name(item.kind).removeprefix("ITEM_KIND_").lower()


def _told(answer: pb.ObserveResponse) -> str:
    if answer.HasField("refused"):
        return f"refused   {answer.refused.error.message}\n"
    seen = answer.observed
    verdict = "refreshed" if seen.refreshed else "admitted" if seen.admitted else "ignored"
    evicted = f", {len(seen.evicted_item_ids)} evicted" if seen.evicted_item_ids else ""
    return f"{verdict:<9} {seen.item.item_id}  salience {seen.salience:.3f}, novelty {seen.novelty:.3f}{evicted}\n"


def _promotions(promotions: Sequence[pb.Promotion]) -> None:
    from soma.common.v1 import types_pb2 as common

    for promotion in promotions:
        if promotion.HasField("error"):
            sys.stdout.write(f"refused   {promotion.item_id}  {promotion.error.message}\n")
        else:
            durability = common.Durability.Name(promotion.durability).removeprefix("DURABILITY_").lower()
            sys.stdout.write(f"promoted  {promotion.item_id}  to {promotion.memory_id}, {durability}\n")
